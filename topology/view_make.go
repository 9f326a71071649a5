package topology

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// parts is what a View is made of: the newest of each.
type parts struct {
	path    string
	theirs  dcs.Snapshot // Patroni's directory
	cluster patroni.Cluster
	lead    patroni.Leadership
	ours    dcs.Snapshot
	records
	pools map[string]*PoolView // by pooler
}

// records is what ours has, decoded.
type records struct {
	fleet     map[string]record.Fleet
	poolers   map[string]record.Pooler
	planes    map[string]record.ControlPlane
	operation record.Operation
	operates  bool
	unread    error // what could not be decoded
}

// saw takes a level of our own directory.
func (p *parts) saw(s dcs.Snapshot) {
	p.ours = s
	var errs [4]error
	p.fleet, errs[0] = record.FleetOf(s, p.path)
	p.poolers, errs[1] = record.PoolersOf(s, p.path)
	p.planes, errs[2] = record.ControlPlanesOf(s, p.path)
	p.operation, p.operates, errs[3] = record.OperationOf(s, p.path)
	p.operates = p.operates && errs[3] == nil
	p.unread = errors.Join(errs[:]...)
}

// view puts the parts together.
func (p *parts) view() View {
	v := View{
		At: time.Now(), Path: p.path, Paused: p.cluster.Config.Paused, Leadership: p.leadership(),
		Members: []MemberView{}, Poolers: []PoolerView{}, ControlPlanes: []ControlPlaneView{},
	}
	if v.Confirmed = p.theirs.At; p.ours.At.Before(v.Confirmed) {
		v.Confirmed = p.ours.At
	}
	for _, m := range p.cluster.Members {
		v.Members = append(v.Members, p.member(m))
	}
	p.own(&v)
	for _, err := range []error{p.theirs.Stale, p.ours.Stale, p.lead.Stale, p.unread} { // of one store: one of them says enough
		if err != nil && v.Stale == "" {
			v.Stale = err.Error()
		}
	}
	return v
}

// seen is where an entry of the store is from; the key may be missing.
func seen(s dcs.Snapshot, key string) Seen {
	e, _ := s.Get(key)
	return Seen{Source: FromStore, Key: key, Revision: e.Version.Modified, At: s.At}
}

func (p *parts) leadership() LeadershipView {
	l := p.lead
	v := LeadershipView{
		Phase: l.Phase.String(), Member: l.Member, Addr: l.Addr, Epoch: l.Epoch, Reason: l.Reason, At: l.At, TTL: l.TTL,
		Seen: seen(p.theirs, p.path+"/leader"), Probe: Seen{Source: FromProbe, At: l.Proof.At},
	}
	if l.Addr.IsValid() {
		v.Probe.Key = l.Addr.String()
	}
	if l.Stale != nil {
		v.Stale = l.Stale.Error()
	}
	if f := l.Failover; f != (patroni.Failover{}) {
		v.Failover = &FailoverView{From: f.Leader, To: f.Candidate, Due: f.ScheduledAt, Revision: l.Requested}
	}
	if o := l.Outage; o != nil {
		v.Outage = &OutageView{At: o.At, Failsafe: o.Failsafe, Ahead: o.Ahead, Reason: o.Reason}
	}
	return v
}

func (p *parts) member(m patroni.Member) MemberView {
	v := MemberView{
		Name: m.Name, Host: m.Host, Proxy: m.Proxy, API: m.API, Role: string(m.Role), State: m.State,
		Replication: m.ReplicationState, Timeline: m.Timeline, LSN: m.LSN, Sync: p.cluster.Sync.Has(m.Name),
		Seen: seen(p.theirs, p.path+"/members/"+m.Name),
	}
	for _, r := range p.lead.Replicas {
		if r.Member != m.Name {
			continue
		}
		v.Fresh, v.Lag = r.Fresh, r.Lag
		if r.Proof.Err != nil {
			v.Error = r.Proof.Err.Error()
		}
	}
	return v
}

// own adds what our own records say.
func (p *parts) own(v *View) {
	for _, name := range slices.Sorted(maps.Keys(p.fleet)) {
		f := p.fleet[name]
		a, live := p.poolers[name]
		pv := PoolerView{
			Name: name, Service: f.Service, Addr: f.Address, Live: live, State: PoolerState(a.State), Target: list(a.Target),
			Epoch: a.Epoch, Operation: a.Operation, Since: a.Since, Reason: a.Reason, Error: a.Error,
			Draining: f.Draining, Empty: f.Draining && a.Draining && a.Empty, Pool: p.pools[name],
			Seen: seen(p.ours, record.FleetKey(p.path, name)),
		}
		if live {
			pv.Seen = seen(p.ours, record.PoolerKey(p.path, name))
		}
		v.Poolers = append(v.Poolers, pv)
	}
	for _, name := range slices.Sorted(maps.Keys(p.planes)) {
		cp := ControlPlaneView{Name: name, Services: map[string]ServiceView{}, Seen: seen(p.ours, record.ControlPlaneKey(p.path, name))}
		for service, st := range p.planes[name].Services {
			cp.Services[service] = ServiceView{
				Version: st.Version, Envoys: list(st.Envoys), Applied: list(st.Applied), Rejected: st.Rejected,
				Draining: list(st.Draining), Kept: st.Kept,
			}
		}
		v.ControlPlanes = append(v.ControlPlanes, cp)
	}
	if o := p.operation; p.operates {
		v.Operation = &OperationView{o.ID, o.Kind, o.From, o.To, o.Phase, o.Owner, o.Since, seen(p.ours, record.OperationKey(p.path))}
	}
}

// list is never nil, so that JSON has [] and not null.
func list[T string | netip.AddrPort](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
