package topology

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// noted is longer than an agent waits before it writes its moves.
const noted = 3 * time.Second

func (b *bench) history(name string) []record.Move {
	b.Helper()
	e := b.entry(record.HistoryKey(demo, name))
	if e.Value == nil {
		return nil
	}
	h, err := record.Decode[record.History](e)
	if err != nil {
		b.Fatal(err)
	}
	return h.Moves
}

// Why traffic moved is in the store: which rule, on what evidence, for whom.
func TestHistory(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := b.routed("pgb-1")
		b.wait(time.Minute)
		began := time.Now()
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.wait(100 * time.Millisecond)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		b.wait(noted)
		o := record.Operation{ID: "op", Phase: record.Hold, Epoch: epoch2, Limit: limit}
		b.put(record.OperationKey(demo), record.Encode(&o))
		b.wait(time.Second)
		b.leads.set(proven("n3", addr3, epoch3))
		b.state(a, Routed)
		b.wait(noted)

		moves := b.history("pgb-1")
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s %s %v %s %s | %s | %s | %s", m.From, m.To, m.Target, m.Epoch, m.Leader, m.Cause, m.Evidence, m.Operation))
		}
		want := []string{
			"starting routed [10.0.0.1:5432] 7/1/100  | found on a proven target at start |  | ",
			"routed held [10.0.0.1:5432] 7/1/100 n1 | the primary does not answer as one | connection refused | ",
			"held routed [10.0.0.2:5432] 7/2/200 n2 | a newer leadership is proven | proven | ",
			"routed held [10.0.0.2:5432] 7/2/200 n2 | an operation, a stop of the primary or a request to Patroni asks for a hold | proven | op",
			"held routed [10.0.0.3:5432] 7/3/300 n3 | a newer leadership is proven | proven | op",
		}
		if !slices.Equal(got, want) {
			t.Errorf("moves:\n%q\nwant\n%q", got, want)
		}
		if !moves[1].At.Equal(began) {
			t.Errorf("held at %s, want %s", moves[1].At, began)
		}
	})
}

// A quiet agent writes nothing, a busy one not each move by itself, and only so many are kept, of earlier runs too.
func TestHistoryIsBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		earlier := make([]record.Move, record.Moves)
		for i := range earlier {
			earlier[i].Cause = fmt.Sprint(i)
		}
		key := record.HistoryKey(demo, "pgb-1")
		b.put(key, record.Encode(&record.History{Moves: earlier}))
		a, _ := b.routed("pgb-1")
		b.wait(noted)
		moves := b.history("pgb-1")
		if len(moves) != record.Moves || moves[0].Cause != "1" || moves[record.Moves-1].To != "routed" {
			t.Errorf("%d moves, first %+v", len(moves), moves[0])
		}
		quiet := b.entry(key).Version
		b.wait(time.Hour)
		if v := b.entry(key).Version; v != quiet {
			t.Error("written while nothing moved")
		}
		last := quiet.Modified
		for e, writes := epoch1, 0; e.Timeline < 101; {
			e.Timeline++
			b.leads.set(proven("n1", addr1, e))
			b.state(a, Routed)
			b.wait(100 * time.Millisecond)
			if m := b.entry(key).Version.Modified; m != last {
				last = m
				if writes++; writes > 15 {
					t.Fatal("more than 15 writes for 100 moves in 10 s")
				}
			}
		}
		b.wait(noted)
		moves = b.history("pgb-1")
		if len(moves) != record.Moves || moves[0].Epoch.Timeline != 102-record.Moves || moves[record.Moves-1].Epoch.Timeline != 101 {
			t.Errorf("%d moves from %s on", len(moves), moves[0].Epoch)
		}
	})
}

// An outage of the store delays the record, never a step.
func TestHistoryThroughAnOutage(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(noted)
		b.store.SetDown(errQuorum)
		for i, to := range []patroni.Leadership{proven("n2", addr2, epoch2), proven("n3", addr3, epoch3)} {
			began := time.Now()
			b.leads.set(dead(b.leads.lead))
			b.state(a, Held)
			b.leads.set(to)
			if b.state(a, Routed); time.Since(began) > 0 {
				t.Errorf("move %d took %s", i, time.Since(began))
			}
			b.wait(time.Minute)
		}
		p.done()
		b.store.SetDown(nil)
		b.wait(noted)
		if moves := b.history("pgb-1"); len(moves) != 5 || moves[4].Epoch != epoch3 {
			t.Errorf("moves %+v", moves)
		}
		b.remove(record.HistoryKey(demo, "pgb-1")) // by an operator
		b.leads.set(dead(b.leads.lead))
		b.wait(2 * noted)
		if moves := b.history("pgb-1"); len(moves) != 6 {
			t.Errorf("after it was removed: %+v", moves)
		}
	})
}

// What was not written yet when the agent stops is written then, and a store that is away does not keep it.
func TestHistoryAtTheEnd(t *testing.T) {
	for name, down := range map[string]error{"store up": nil, "store down": errQuorum} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}}
				b.leads.set(proven("n1", addr1, epoch1))
				stop := b.run(b.agent("pgb-1", p))
				b.wait(noted)
				b.leads.set(dead(b.leads.lead))
				b.wait(10 * time.Millisecond)
				b.store.SetDown(down)
				began := time.Now()
				stop()
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("the end took %s", d)
				}
				b.store.SetDown(nil)
				want := map[bool]int{true: 2, false: 1}[down == nil]
				if moves := b.history("pgb-1"); len(moves) != want {
					t.Errorf("%d moves, want %d", len(moves), want)
				}
			})
		})
	}
}

// A move that nobody has taken yet when the agent stops is written too.
func TestHistoryTakesTheLastMove(t *testing.T) {
	for range 20 { // which of two ready channels is seen first is chance
		inBubble(t, func(b *bench) {
			a := b.agent("pgb-1", &fakePooler{})
			r := &agentRun{Agent: a, log: a.logger(), told: make(chan []record.Move, 1)}
			r.told <- []record.Move{{Cause: "the last one"}}
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			cancel()
			r.keepHistory(ctx)
			if moves := b.history("pgb-1"); len(moves) != 1 {
				t.Errorf("moves %+v", moves)
			}
		})
	}
}

// What somebody else has written meanwhile stays, and nothing is there twice.
func TestHistoryIsMerged(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := b.routed("pgb-1")
		b.wait(noted)
		moves := b.history("pgb-1")
		moves = append(moves, record.Move{At: time.Now(), From: "held", To: "routed", Cause: "another agent's"})
		b.put(record.HistoryKey(demo, "pgb-1"), record.Encode(&record.History{Moves: moves}))
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.wait(2 * noted)
		var got []string
		for _, m := range b.history("pgb-1") {
			got = append(got, m.To+" "+m.Cause)
		}
		want := []string{"routed found on a proven target at start", "routed another agent's", "held the primary does not answer as one"}
		if !slices.Equal(got, want) {
			t.Errorf("moves %q, want %q", got, want)
		}
	})
}

// The evidence of a move is of what it rests on: what was seen past the store only where nothing better is known.
func TestHistoryEvidenceInAnOutage(t *testing.T) {
	dying := func(l patroni.Leadership, o patroni.Outage) patroni.Leadership { return past(dead(l), o) }
	promoting := func(l patroni.Leadership, o patroni.Outage) patroni.Leadership {
		l.Phase, l.Proof.Writable = patroni.Promoting, false
		return past(l, o)
	}
	for _, c := range []struct {
		name   string
		level  func(patroni.Leadership, patroni.Outage) patroni.Leadership
		outage patroni.Outage
		want   string
	}{
		{"the server does not answer", dying, patroni.Outage{Reason: "seen past the store"}, errDead.Error()},
		{"it answers, in recovery", promoting, patroni.Outage{Reason: "seen past the store"}, "seen past the store"},
		{"another member is ahead", past, patroni.Outage{Ahead: "n2", Reason: "n2 is writable"}, "n2 is writable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, _ := b.routed("pgb-1")
				b.wait(noted)
				b.leads.set(c.level(proven("n1", addr1, epoch1), c.outage))
				b.state(a, Held)
				b.wait(noted)
				moves := b.history("pgb-1")
				if m := moves[len(moves)-1]; m.To != "held" || m.Evidence != c.want {
					t.Errorf("%+v, want the evidence %q", m, c.want)
				}
			})
		})
	}
	inBubble(t, func(b *bench) { // a newer one is proven, and then the store falls silent
		p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}}
		b.leads.set(past(proven("n2", addr2, epoch2), patroni.Outage{Reason: "seen past the store"}))
		b.run(b.agent("pgb-1", p))
		b.wait(noted)
		moves := b.history("pgb-1")
		if m := moves[len(moves)-1]; m.To != "routed" || m.Evidence != "proven" {
			t.Errorf("%+v", m)
		}
	})
}
