package topology

import (
	"context"
	"fmt"
	"reflect"

	"github.com/pgconvoy/pgconvoy/internal/record"
)

// tell publishes what the agent is doing: to State at once, to the store by the registration.
func (r *agentRun) tell() {
	s := &r.situation
	st := AgentState{
		State: s.state, Target: s.route, Epoch: s.epoch, Drained: s.state == Held && r.drain,
		Since: r.since, Reason: r.reason, Err: r.err,
	}
	if r.asking && s.state == Held {
		st.Operation = r.asker
	}
	if st.Err == nil && r.Service == Write && strange(s) {
		st.Err = fmt.Errorf("%s is proven at epoch %s and is not followed: %s", s.lead.Member, s.lead.Epoch, s.order())
	}
	r.mu.Lock()
	r.published = st
	r.mu.Unlock()

	p := record.Pooler{
		Abilities: []string{record.AbilityHold}, Service: r.Service.String(), Address: r.Listen,
		State: string(st.State), Drained: st.Drained, Epoch: st.Epoch, Target: st.Target.Hosts,
		Operation: st.Operation, Since: st.Since, Reason: st.Reason,
	}
	if st.Err != nil {
		p.Error = st.Err.Error()
	}
	if reflect.DeepEqual(p, r.told) {
		return
	}
	r.told = p
	offer(r.news, p)
}

// register keeps the roster entry and the registration written.
func (r *agentRun) register(ctx context.Context) {
	publish(ctx, r.Store, record.PoolerKey(r.Path, r.Name), r.news,
		func(p record.Pooler) []byte { return record.Encode(&p) }, r.enlist,
		func(err error) { r.log.WarnContext(ctx, "the registration is not kept; tried again", "error", err) })
}

// enlist writes the roster entry where it differs: the pooler belongs to the fleet until somebody removes it.
func (r *agentRun) enlist(ctx context.Context) error {
	snap, err := r.Store.Get(ctx, record.Dir(r.Path))
	if err != nil {
		return err
	}
	key := record.FleetKey(r.Path, r.Name)
	mine := record.Fleet{Service: r.Service.String(), Address: r.Listen}
	value := record.Encode(&mine)
	e, _ := snap.Get(key)
	if string(e.Value) == string(value) {
		return nil
	}
	_, err = r.Store.Put(ctx, key, value, e.Version)
	return err
}

// checkName refuses a name that cannot be the last element of a key.
func checkName(field, name string) error {
	switch name {
	case "":
		return fmt.Errorf("topology: %s is empty", field)
	case ".", "..":
		return fmt.Errorf("topology: %s %q cannot be part of a key", field, name)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return fmt.Errorf("topology: %s %q may have letters, digits, - _ and . only", field, name)
		}
	}
	return nil
}
