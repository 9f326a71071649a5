package topology

import (
	"context"
	"fmt"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// tell publishes what the agent is doing: to State at once, to the store by the registration.
func (r *agentRun) tell() {
	s := &r.situation
	st := AgentState{
		State: s.state, Target: s.route, Epoch: s.epoch, Drained: s.state == Held && r.drain, Draining: r.draining,
		Since: r.since, Reason: r.reason, Err: r.trouble(),
	}
	if r.asking && s.state == Held {
		st.Operation = r.asker.id
	}
	r.mu.Lock()
	r.published = st
	r.mu.Unlock()

	p := record.Pooler{
		Abilities: []string{record.AbilityHold, record.AbilityDrain}, Service: r.Service.String(), Address: r.Listen, Instance: r.instance,
		State: string(st.State), Drained: st.Drained, Epoch: st.Epoch, Target: st.Target.Hosts,
		Operation: st.Operation, Since: st.Since, Reason: st.Reason, Draining: r.draining, Empty: r.draining && r.empty,
	}
	if st.Err != nil {
		p.Error = st.Err.Error()
	}
	again := r.rivals && time.Since(r.newsAt) >= reassert
	if reflect.DeepEqual(p, r.written) && !again {
		return
	}
	r.written, r.newsAt = p, time.Now()
	offer(r.news, p)
}

// trouble is what does not work at present.
func (r *agentRun) trouble() error {
	s := &r.situation
	switch {
	case r.err != nil:
		return r.err
	case r.Service == Write && strange(s):
		return fmt.Errorf("%s is proven at epoch %s and is not followed (%s; this pooler is at %s): %s",
			s.lead.Member, s.lead.Epoch, s.order(), s.epoch, remedy(s, r.Prober != nil))
	case r.rival():
		return fmt.Errorf("another agent named %s registers; stop one of them, or give it another name", r.Name)
	}
	return nil
}

// remedy says what ends the wait for a leadership that is not followed; asks: the old primary can be asked.
func remedy(s *situation, asks bool) string {
	switch s.order() {
	case patroni.Rebuilt:
		how := fmt.Sprintf("it is followed when the old primary at %s is seen to follow it, or when an operator accepts its epoch", s.home)
		if !asks || !s.home.IsValid() {
			how = "it is followed when an operator accepts its epoch"
		}
		return how + " (the store was restored or made anew)"
	case patroni.Foreign:
		return "it is followed when an operator accepts its epoch (the cluster was made anew, or this is the wrong one)"
	}
	return "nothing older is ever followed: look for a store that was restored, or for two clusters under this path"
}

// An agent that is not alone with its name says so as long as it sees the other one, and for rivalFor after that, since
// its own registration hides the other's; it writes its own over the other's each reassert, so that both can see it.
const (
	reassert = 20 * time.Second
	rivalFor = time.Minute
)

func (r *agentRun) rival() bool {
	return r.rivals || !r.rivalAt.IsZero() && time.Since(r.rivalAt) < rivalFor
}

// sawRegistration looks whose registration is there. Before our own was seen it is what a run that was killed has left.
func (r *agentRun) sawRegistration(s dcs.Snapshot) {
	e, there := s.Get(record.PoolerKey(r.Path, r.Name))
	p, err := record.Decode[record.Pooler](e)
	mine := there && err == nil && p.Instance == r.instance
	r.registered = r.registered || mine
	r.rivals = r.registered && there && !mine
	if r.rivals {
		r.rivalAt = time.Now()
	} else if !there {
		r.rivalAt = time.Time{} // it has gone, and took the registration with it
	}
}

// sawRecords takes what the store has of ours. Before it has answered, that is nothing new.
func (r *agentRun) sawRecords(s dcs.Snapshot) {
	if !s.Known() {
		return
	}
	ignored := func(what string, err error) {
		if err != nil {
			r.log.Warn(what+" cannot be read; it is ignored", "error", err)
		}
	}
	others := false
	for key := range s.Changed(r.records) {
		if name, ok := strings.CutPrefix(key, record.PoolerKey(r.Path, "")); ok {
			r.sawPeer(s, name)
		} else {
			others = true
		}
	}
	r.records = s
	r.sawRegistration(s)
	if !others {
		return // in a large fleet nearly all news are of other poolers
	}
	op, ok, err := record.OperationOf(s, r.Path)
	ignored("the operation's record", err)
	if !ok || err != nil {
		op = record.Operation{}
	}
	r.operation = op
	r.stops, err = record.BeforeStopsOf(s, r.Path)
	ignored("the request of a before-stop hook", err)
	r.hooks, err = record.HooksOf(s, r.Path)
	ignored("the record of a before-stop hook", err)
	word, _, err := record.AcceptedOf(s, r.Path)
	ignored("an operator's word", err)
	r.accepted = word.Epoch

	e, _ := s.Get(record.FleetKey(r.Path, r.Name))
	entry, _ := record.Decode[record.Fleet](e) // of one that cannot be read nothing is asked
	if entry.Draining != r.draining {
		r.draining, r.empty = entry.Draining, false
		r.log.Info("draining", "asked", r.draining)
	}
}

// sawPeer keeps in mind who else could wake a Patroni.
func (r *agentRun) sawPeer(s dcs.Snapshot, name string) {
	e, there := s.Get(record.PoolerKey(r.Path, name))
	p, err := record.Decode[record.Pooler](e)               // one that cannot be read counts as absent
	if there && err == nil && p.Service == Write.String() { // the others wake nobody
		r.peers[name] = true
	} else {
		delete(r.peers, name)
	}
}

// register keeps the roster entry and the registration written.
func (r *agentRun) register(ctx context.Context) {
	publish(ctx, r.Store, record.PoolerKey(r.Path, r.Name), r.news,
		func(p record.Pooler) []byte { return record.Encode(&p) }, r.enlist,
		func(err error) { r.log.WarnContext(ctx, "the registration is not kept; tried again", "error", err) })
}

// enlist writes the roster entry where it differs: the pooler belongs to the fleet until somebody removes it. What an
// operator asked of it stays, and so does an entry that cannot be read: a newer program wrote it, and knows what it says.
func (r *agentRun) enlist(ctx context.Context) error {
	key := record.FleetKey(r.Path, r.Name)
	snap, err := r.Store.Get(ctx, path.Dir(key))
	if err != nil {
		return err
	}
	e, there := snap.Get(key)
	old, err := record.Decode[record.Fleet](e)
	if there && err != nil {
		r.log.WarnContext(ctx, "the roster entry cannot be read; it is left as it is", "error", err)
		return nil
	}
	mine := old
	mine.Service, mine.Address = r.Service.String(), r.Listen
	if there && mine == old {
		return nil
	}
	_, err = r.Store.Put(ctx, key, record.Encode(&mine), e.Version)
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
