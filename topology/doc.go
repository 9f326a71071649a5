// Package topology composes a highly available PostgreSQL path - Envoy, a fleet of PgBouncers, a Patroni cluster and
// its configuration store - out of roles that each run where they are needed:
//
//   - [Agent], one beside each PgBouncer, sends it to the proven primary (or to fresh replicas) and holds it over a change;
//   - [ControlPlane] serves the fleet to any number of Envoys;
//   - [Coordinator] plans and carries out a switchover that no client notices;
//   - [Observer] reads everything that is known about a stack as one [View], and why traffic moved as [Event] values;
//   - [Fleet] is an operator's hand on the poolers: out of service, back, and off the roster.
//
// Roles meet only in the store: their records are below /pgconvoy followed by the cluster's path, and the histories of
// the poolers below /pgconvoy-history followed by it. A role's fields are read once, when it
// starts, and are never written; Run blocks and owns all that it started.
//
// What roles need from outside are seams: [LeaderSource], [Pooler], [Router], [EnvoyConfig] and [dcs.Store]. Each can
// be replaced. A seam never gains a method: a new ability is an interface of one method that is found by assertion.
package topology
