package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// startLimit bounds a start. A first start on a slow machine takes a fifth of it.
const startLimit = 3 * time.Minute

// ready waits until the whole path works: every node streams, a synchronous standby is there, every pooler is routed,
// Envoy serves what the control plane says, and a query comes back through both entry points.
func (s *Stack) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	missing := "the first view"
	tell := func(what string) {
		if what != missing && what != "" {
			s.progress(what)
		}
		missing = what
	}
	if err := s.Await(ctx, func(v topology.View) bool {
		what := s.unready(v)
		tell(what)
		return what == ""
	}); err != nil {
		return fmt.Errorf("local: the stack did not get ready, still waiting for %s (logs are in %s): %w", missing, s.logs, err)
	}
	services := []topology.Service{topology.Write}
	dsns := []string{s.WriteDSN()}
	if s.reads() {
		services, dsns = append(services, topology.Read), append(dsns, s.ReadDSN())
	}
	for i, service := range services {
		tell("the " + service.String() + " service through Envoy")
		if err := s.answers(ctx, dsns[i]); err != nil {
			return fmt.Errorf("local: the %s service does not answer through Envoy (logs are in %s): %w", service, s.logs, err)
		}
	}
	return nil
}

// Await returns when a view satisfies done, or with the end of ctx. While it waits, the Patronis of the
// primary and of who does not stream are woken twice a second: they choose a synchronous standby, and start a replica,
// in their loops only. The poolers' consoles are not asked.
func (s *Stack) Await(ctx context.Context, done func(topology.View) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := s.Observer()
	o.Console = nil // a moment is not missed for want of figures, and none is woken by them
	views, wait := dcs.Latest(o.Watch(ctx))
	defer func() {
		cancel()
		_ = wait() // returned below
	}()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last topology.View
	for {
		select {
		case v, ok := <-views:
			if !ok {
				if err := context.Cause(ctx); err != nil {
					return err
				}
				return wait()
			}
			if last = v; done(v) {
				return nil
			}
		case <-tick.C:
			s.wake(ctx, last)
		}
	}
}

// wake has the Patronis look at once that have something to do: the leader, and who does not stream from it. (On Consul
// only the leader does: the others wait for its key, for up to a loop, in a call that nothing interrupts.)
func (s *Stack) wake(ctx context.Context, v topology.View) {
	if v.Leadership.Phase != patroni.Writable.String() || v.Paused {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range v.Members {
		if m.Name == v.Leadership.Member || m.Replication != "streaming" {
			wg.Go(func() { _ = s.Patroni().Wake(ctx, m.API) }) // it only makes the wait shorter
		}
	}
	wg.Wait()
}

// Ready reports whether a view of this stack is whole: all nodes stream, a synchronous standby is there, all poolers
// are routed where they belong.
func (s *Stack) Ready(v topology.View) bool { return s.unready(v) == "" }

// unready says what a view lacks; empty: nothing.
func (s *Stack) unready(v topology.View) string {
	if v.Leadership.Phase != patroni.Writable.String() {
		return "a writable primary"
	}
	var primary topology.MemberView
	streaming, sync := 0, false
	for _, m := range v.Members {
		switch {
		case m.Name == v.Leadership.Member:
			primary = m
		case m.State == "running" && m.Replication == "streaming" && m.Timeline == v.Leadership.Epoch.Timeline:
			streaming++
			sync = sync || m.Sync
		}
	}
	others := len(s.spec.Nodes) - 1
	if streaming < others {
		return fmt.Sprintf("replicas (%d of %d stream)", streaming, others)
	}
	if others > 0 && !s.spec.Asynchronous && !sync {
		return "a synchronous standby"
	}
	routed := 0
	for _, p := range v.Poolers {
		onPrimary := slices.ContainsFunc(p.Target, func(a netip.AddrPort) bool { return a.String() == primary.Route() })
		read := p.Service == topology.Read.String()
		if p.Live && p.State == topology.Routed && (!read || others == 0 || !onPrimary && len(p.Target) == others) {
			routed++
		}
	}
	if routed < len(s.spec.Poolers) {
		return fmt.Sprintf("poolers (%d of %d routed)", routed, len(s.spec.Poolers))
	}
	for _, cp := range v.ControlPlanes {
		for name, service := range cp.Services {
			if len(service.Applied) == 0 {
				return "Envoy to apply the " + name + " service"
			}
		}
		if len(cp.Services) > 0 {
			return ""
		}
	}
	return "the control plane"
}

// answers waits until a query comes back: Envoy may still be checking the health of its first endpoints.
func (s *Stack) answers(ctx context.Context, dsn string) error {
	for {
		err := ping(ctx, dsn)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ping(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// Info is how others find a running stack: the content of its ready file.
type Info struct {
	WriteDSN     string            `json:"write_dsn"`     // the application's user, through Envoy
	ReadDSN      string            `json:"read_dsn"`      // likewise; empty without a read service
	DirectDSNs   map[string]string `json:"direct_dsns"`   // the application's user, by member
	SuperuserDSN string            `json:"superuser_dsn"` // straight to the present primary
	Patroni      map[string]string `json:"patroni"`       // REST address by member, with credentials
	AdminDSNs    map[string]string `json:"admin_dsns"`    // PgBouncer's console, by pooler
	EnvoyAdmin   string            `json:"envoy_admin"`
	DCS          DCS               `json:"dcs"`
	Path         string            `json:"path"`
	Dir          string            `json:"dir"`
	PIDs         map[string]int    `json:"pids"` // by component
}

// Info describes the stack as it is now. It holds passwords.
func (s *Stack) Info(ctx context.Context) (Info, error) {
	v := s.View(ctx)
	info := Info{
		WriteDSN: s.WriteDSN(), DirectDSNs: map[string]string{}, Patroni: map[string]string{}, AdminDSNs: map[string]string{},
		EnvoyAdmin: "http://" + s.spec.Envoy.Admin.String(), DCS: s.DCS(),
		Path: s.spec.Path, Dir: s.folder.dir, PIDs: map[string]int{},
	}
	if s.reads() {
		info.ReadDSN = s.ReadDSN()
	}
	if info.SuperuserDSN = s.SuperuserDSN(v.Leadership.Member); info.SuperuserDSN == "" {
		return info, fmt.Errorf("local: no primary is known at present: %s", v.Leadership.Reason)
	}
	for _, n := range s.spec.Nodes {
		info.DirectDSNs[n.Name] = s.DirectDSN(n.Name)
		info.Patroni[n.Name] = fmt.Sprintf("http://%s:%s@%s", restUser, string(s.folder.secrets.REST), n.API)
	}
	for _, p := range s.spec.Poolers {
		info.AdminDSNs[p.Name] = s.AdminDSN(p.Name)
	}
	for _, c := range s.Components() {
		if pid, err := s.PID(c); err == nil { // what is down has none
			info.PIDs[c] = pid
		}
	}
	return info, nil
}

// WriteReadyFile writes Info as one JSON object, readable by this user alone, in one rename.
func (s *Stack) WriteReadyFile(ctx context.Context, path string) error {
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("local: ready file: %w", err)
	}
	return nil
}
