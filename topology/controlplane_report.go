package topology

import (
	"context"
	"reflect"
	"slices"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// report makes the record of what the balancers have applied.
func (r *controlRun) report(envoys []envoyconf.EnvoyStatus) {
	p := record.ControlPlane{Instance: r.instance, Services: map[string]record.ServiceState{}}
	for service, s := range r.services {
		st := record.ServiceState{Version: s.version, Draining: s.draining, Kept: s.kept}
		for _, e := range envoys {
			st.Envoys = append(st.Envoys, e.Node)
			if e.Applied[service] == s.version {
				st.Applied = append(st.Applied, e.Node)
			}
			if why, ok := e.Rejected[service]; ok {
				if st.Rejected == nil {
					st.Rejected = map[string]string{}
				}
				st.Rejected[e.Node] = why
			}
		}
		slices.Sort(st.Envoys)
		slices.Sort(st.Applied)
		p.Services[service] = st
	}
	if reflect.DeepEqual(p, r.told) {
		return
	}
	r.told = p
	offer(r.news, p)
}

func (r *controlRun) publish(ctx context.Context) {
	publish(ctx, r.Store, record.ControlPlaneKey(r.Path, r.Name), r.news,
		func(p record.ControlPlane) []byte { return record.Encode(&p) }, nil,
		func(err error) { r.log.WarnContext(ctx, "the record is not kept; tried again", "error", err) })
}

// sawRecord looks after our own record: who else writes it, and whether it is there. Two control planes of one name
// serve their Envoys as well as any, but nobody sees what the Envoys of one of them have applied.
func (r *controlRun) sawRecord(ctx context.Context, s dcs.Snapshot) {
	if !s.Known() || s.Stale != nil {
		return
	}
	e, there := s.Get(record.ControlPlaneKey(r.Path, r.Name))
	p, err := record.Decode[record.ControlPlane](e)
	switch {
	case !there && r.ours: // it went with the lease of another run of this name
		r.ours, r.told = false, record.ControlPlane{}
	case !there || err != nil:
	case p.Instance == r.instance:
		r.ours = true
	case r.ours && p.Instance != r.twin: // before ours was there, it is that of a predecessor
		r.twin = p.Instance
		r.log.WarnContext(ctx, "another control plane of the same name is running; give each a name of its own")
	}
}
