package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// moved adds to a pooler's history as its agent does.
func (b *bench) moved(name, cause string, at time.Time) {
	b.Helper()
	h := record.History{}
	if e := b.entry(record.HistoryKey(demo, name)); e.Value != nil {
		var err error
		if h, err = record.Decode[record.History](e); err != nil {
			b.Fatal(err)
		}
	}
	h.Moves = append(h.Moves, record.Move{At: at, From: "held", To: "routed", Cause: cause, Target: []netip.AddrPort{addr1}, Epoch: epoch1})
	if n := len(h.Moves) - record.Moves; n > 0 {
		h.Moves = h.Moves[n:]
	}
	b.put(record.HistoryKey(demo, name), record.Encode(&h))
}

// listener follows the events of a bench.
type listener struct {
	mu     sync.Mutex
	causes []string
	err    error
}

func (b *bench) listen() *listener {
	b.Helper()
	l := &listener{}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(b.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range (&Observer{Path: demo, Store: b.store}).Events(ctx) {
			l.mu.Lock()
			if err != nil {
				l.err = err
			} else {
				l.causes = append(l.causes, e.Pooler+" "+e.Cause)
			}
			l.mu.Unlock()
		}
	}()
	b.Cleanup(func() {
		cancel(errDead)
		<-done
		if !errors.Is(l.err, errDead) {
			b.Errorf("ended with %v", l.err)
		}
	})
	synctest.Wait()
	return l
}

func (l *listener) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.causes, want) {
		t.Errorf("events %q, want %q", l.causes, want)
	}
	l.causes = nil
}

func TestEvents(t *testing.T) {
	inBubble(t, func(b *bench) {
		at := time.Now()
		b.moved("pgb-2", "a", at)
		b.moved("pgb-1", "b", at.Add(time.Second))
		b.moved("pgb-2", "c", at.Add(2*time.Second))
		b.moved("pgb-1", "d", at.Add(3*time.Second))
		l := b.listen()
		l.wants(t, "pgb-2 a", "pgb-1 b", "pgb-2 c", "pgb-1 d") // by time, whoever's
		b.moved("pgb-1", "e", at.Add(4*time.Second))
		l.wants(t, "pgb-1 e")
		b.wait(time.Minute) // confirmed again and again
		l.wants(t)
		b.store.SetDown(errors.New("no quorum"))
		b.wait(time.Minute)
		b.store.SetDown(nil)
		l.wants(t)
		b.put(record.HistoryKey(demo, "pgb-3"), []byte(`{"v":99}`)) // by a newer program
		b.moved("pgb-2", "f", at.Add(-time.Hour))                   // its clock was set
		l.wants(t, "pgb-2 f")

		restore := b.store.Backup()
		b.moved("pgb-1", "g", at.Add(5*time.Second))
		l.wants(t, "pgb-1 g")
		restore() // an older copy of the store
		b.wait(time.Minute)
		b.moved("pgb-1", "h", at.Add(6*time.Second))
		l.wants(t, "pgb-1 h")

		var want []string
		for i := range 20 * record.Moves { // the record is bounded, and so is what is remembered
			b.moved("pgb-1", fmt.Sprint(i), at.Add(time.Duration(10+i)*time.Second))
			want = append(want, fmt.Sprintf("pgb-1 %d", i))
		}
		l.wants(t, want...)
		b.remove(record.HistoryKey(demo, "pgb-1"))
		l.wants(t)
	})
}

func TestEventsEnd(t *testing.T) {
	n := 0
	for e, err := range (&Observer{Path: "demo", Store: memory.New()}).Events(t.Context()) {
		if n++; err == nil || !strings.Contains(err.Error(), "Observer.Path") {
			t.Errorf("%v, %v", e, err)
		}
	}
	if n != 1 {
		t.Errorf("%d pairs", n)
	}
	inBubble(t, func(b *bench) {
		b.moved("pgb-1", "a", time.Now())
		for range (&Observer{Path: demo, Store: b.store}).Events(b.Context()) {
			break
		}
	})
}

func TestEventText(t *testing.T) {
	e := Event{
		At: time.Date(2026, 11, 24, 3, 12, 5, 123e6, time.UTC), Pooler: "pgb-1", From: Held, To: Routed, Target: []netip.AddrPort{addr2},
		Epoch: epoch2, Cause: "a newer leadership is proven", Leader: "n2", Evidence: "writable on timeline 2", Operation: "op",
	}
	want := "2026-11-24T03:12:05.123Z pgb-1: held -> routed, clients to 10.0.0.2:5432, epoch 7/2/200: a newer leadership is proven " +
		"(leader n2: writable on timeline 2), for operation op"
	if e.String() != want {
		t.Errorf("%s\nwant %s", e, want)
	}
	if s := (Event{}).String(); s != "0001-01-01T00:00:00.000Z : - -> -, clients to nothing, epoch -: -" {
		t.Errorf("zero: %s", s)
	}
	text, err := json.Marshal(eventOf("pgb-1", record.Move{To: "failed"}))
	if err != nil || !strings.Contains(string(text), `"target":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}
