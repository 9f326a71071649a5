package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

func TestView(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		b.put(demo+"/members/n2", []byte(`{"conn_url":"postgres://replicator:hunter2@10.0.0.2:5432/postgres",
			"api_url":"http://admin:hunter2@n2:8008/patroni","state":"running","role":"replica","timeline":1,"replication_state":"streaming"}`))
		b.enlist("pgb-9", "read", 9) // without an agent
		version := "v1"
		b.put(record.ControlPlaneKey(demo, "cp-1"), record.Encode(&record.ControlPlane{Services: map[string]record.ServiceState{
			"write": {Version: version, Envoys: []string{"e1", "e2"}, Applied: []string{"e1"}, Rejected: map[string]string{"e2": "bad"}},
		}}))
		b.operation("op", record.Prepare, limit)
		o := &Observer{Path: demo, Store: b.store, Leaders: b.leads}
		began := time.Now()
		v := o.View(b.Context())
		if time.Since(began) > 0 {
			t.Errorf("took %s", time.Since(began))
		}
		if v.Stale != "" || v.Leadership.Member != "n1" || v.Leadership.Epoch != epoch1 || v.Leadership.Phase != "writable" ||
			len(v.Members) != 3 || !v.Members[1].Sync || v.Members[0].Role != "primary" || v.Confirmed.IsZero() || v.At.IsZero() {
			t.Errorf("view %+v", v)
		}
		if len(v.Poolers) != 3 || !v.Poolers[0].Live || v.Poolers[0].State != Routed || v.Poolers[0].Target[0] != addr1 ||
			v.Poolers[2].Name != "pgb-9" || v.Poolers[2].Live || v.Poolers[2].State != "" {
			t.Errorf("poolers %+v", v.Poolers)
		}
		if len(v.ControlPlanes) != 1 || v.ControlPlanes[0].Services["write"].Rejected["e2"] != "bad" {
			t.Errorf("control planes %+v", v.ControlPlanes)
		}
		if v.Operation == nil || v.Operation.ID != "op" || v.Operation.Phase != "prepare" {
			t.Errorf("operation %+v", v.Operation)
		}
		if v.Routed() {
			t.Error("routed, and pgb-9 has no agent")
		}
		b.remove(record.FleetKey(demo, "pgb-9"))
		if v := o.View(b.Context()); !v.Routed() {
			t.Errorf("not routed: %s", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, shown := range []string{string(text), v.String(), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", f.co.Patroni)} {
			if strings.Contains(shown, "hunter2") {
				t.Errorf("a secret in %s", shown)
			}
		}
		var back View
		if err := json.Unmarshal(text, &back); err != nil || back.Leadership.Epoch != epoch1 || back.Poolers[0].Target[0] != addr1 {
			t.Errorf("read back %+v, %v", back, err)
		}
		for _, part := range []string{"leader n1 writable", "pgb-1", "no agent", "applied by 1 of 2", "operation op", "sync"} {
			if !strings.Contains(v.String(), part) {
				t.Errorf("%q is not in\n%s", part, v)
			}
		}
	})
}

func TestViewIsBounded(t *testing.T) {
	for name, prepare := range map[string]func(b *bench) (context.Context, string){
		"store down": func(b *bench) (context.Context, string) {
			b.store.SetDown(errors.New("no quorum"))
			return b.Context(), "no quorum"
		},
		"nothing is proven": func(b *bench) (context.Context, string) {
			b.leads.set(dead(proven("n1", addr1, epoch1)))
			return b.Context(), "" // the store has told everything
		},
		"the source says nothing": func(b *bench) (context.Context, string) {
			return b.Context(), "not confirmed within 2 s"
		},
		"the source ends": func(b *bench) (context.Context, string) {
			b.leads.set(dead(proven("n1", addr1, epoch1)))
			b.leads.endWith(errDead)
			return b.Context(), errDead.Error()
		},
		"the caller leaves": func(b *bench) (context.Context, string) {
			b.store.SetDown(errors.New("no quorum"))
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			b.Cleanup(cancel)
			return ctx, "no quorum"
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.put(demo+"/leader", []byte("n1"))
				ctx, why := prepare(b)
				began := time.Now()
				v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(ctx)
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("took %s", d)
				}
				if v.Stale != why || v.Path != demo {
					t.Errorf("stale %q, want %q", v.Stale, why)
				}
			})
		})
	}
}

func TestViewOfAnUnreadableRecord(t *testing.T) {
	for _, key := range []string{
		record.OperationKey(demo), record.FleetKey(demo, "pgb-1"), record.PoolerKey(demo, "pgb-1"), record.ControlPlaneKey(demo, "cp-1"),
	} {
		inBubble(t, func(b *bench) {
			b.leads.set(proven("n1", addr1, epoch1))
			b.enlist("pgb-2", "write", 2)
			b.put(key, []byte(`{"v":99}`))
			v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(b.Context())
			if v.Operation != nil || !strings.Contains(v.Stale, key+" has version 99") || len(v.Poolers) != 1 || v.Confirmed.IsZero() {
				t.Errorf("%s: view %+v", key, v)
			}
			b.remove(key)
			if v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(b.Context()); v.Stale != "" {
				t.Errorf("%s: stale %q", key, v.Stale)
			}
		})
	}
}

func TestObserverWatch(t *testing.T) {
	denied := errors.New("permission denied")
	inBubble(t, func(b *bench) {
		b.leads.set(proven("n1", addr1, epoch1))
		o := &Observer{Path: demo, Store: b.store, Leaders: b.leads}
		n := 0
		var last error
		for v, err := range o.Watch(b.Context()) {
			if n++; n == 10 {
				if v.Leadership.Member != "n1" {
					t.Errorf("leadership %+v", v.Leadership)
				}
				b.leads.endWith(denied) // one of its watches ends
			}
			last = err
		}
		if last == nil || last.Error() != denied.Error() {
			t.Errorf("ended with %v", last)
		}

		b.leads.endWith(nil)
		ctx, cancel := context.WithCancelCause(b.Context())
		defer cancel(nil)
		for _, err := range o.Watch(ctx) {
			cancel(errDead)
			last = err
		}
		if last == nil || last.Error() != errDead.Error() {
			t.Errorf("ended with %v", last)
		}
		for range o.Watch(b.Context()) {
			break // leaves nothing behind
		}
		for v, err := range (&Observer{Path: "demo", Store: b.store}).Watch(b.Context()) {
			if err == nil || !strings.Contains(err.Error(), "Observer.Path") {
				t.Errorf("%+v, %v", v, err)
			}
		}
	})
}

// Without a prober it still knows who holds the key.
func TestObserverProvesNothing(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.put(demo+"/leader", []byte("n1"))
		v := (&Observer{Path: demo, Store: b.store}).View(b.Context())
		if v.Leadership.Member != "n1" || v.Leadership.Phase != patroni.Elected.String() || v.Routed() || v.Stale != "" {
			t.Errorf("view %+v", v)
		}
	})
}
