package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

const (
	holderOf = "PGCONVOY_TEST_HOLDER" // set where this program is to hold a lock: the store's kind and addresses
	lock     = "/pgconvoy/holder/lock"
)

func TestMain(m *testing.M) {
	if store := os.Getenv(holderOf); store != "" {
		hold(strings.Fields(store))
		return
	}
	os.Exit(m.Run())
}

// said is what a holder says, a line for each thing that happens to it.
type said struct {
	Token uint64 // it holds the lock
	Wrote bool   // it has written the key once more
	Late  string // its first write that was refused
	Plain string // and one to the version that it knows, without the lease
	Lost  string // why its context has ended
	End   string // what Lock returned
	// What these are.
	Conflict, IsLost bool
}

// hold takes the lock and writes it all the time, also when it is told that it must not: a program that was stopped in
// the middle of its work goes on there.
func hold(store []string) {
	say := func(s said) { _ = json.NewEncoder(os.Stdout).Encode(s) }
	s, _, err := kinds[store[0]].connect(store[1:])
	if err != nil {
		say(said{End: err.Error()})
		os.Exit(1)
	}
	err = dcs.Lock(context.Background(), s, lock, []byte("first"), func(ctx context.Context, w dcs.Writer, v dcs.Version) error {
		say(said{Token: v.Created})
		deaf := context.WithoutCancel(ctx)
		refused := false
		for n := 0; !refused; n++ {
			next, err := w.Put(deaf, lock, fmt.Append(nil, "first ", n), v)
			switch {
			case errors.Is(err, dcs.ErrUnknown): // it was stopped while it waited for the answer
			case err != nil:
				say(said{Late: err.Error()})
				refused = true
			default:
				v = next
				if n == 0 {
					say(said{Wrote: true})
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		<-ctx.Done()
		cause := context.Cause(ctx)
		say(said{Lost: cause.Error(), IsLost: errors.Is(cause, dcs.ErrLeaseLost)})
		say(plain(deaf, s, v))
		return ctx.Err()
	})
	say(said{End: fmt.Sprint(err), IsLost: errors.Is(err, dcs.ErrLeaseLost)})
	time.Sleep(10 * Within) // until it is ended
}

// plain writes without the lease, as soon as it can: the connection may be lost, too.
func plain(ctx context.Context, s dcs.Store, v dcs.Version) said {
	for deadline := time.Now().Add(Within); ; time.Sleep(20 * time.Millisecond) {
		_, err := s.Put(ctx, lock, []byte("first without a lease"), v)
		if err == nil || errors.Is(err, dcs.ErrConflict) || time.Now().After(deadline) {
			return said{Plain: fmt.Sprint(err), Conflict: errors.Is(err, dcs.ErrConflict)}
		}
	}
}

// A process that holds a lock is stopped for longer than its lease and continued: another one has had the lock with a
// higher token meanwhile, and what the first one still writes is refused.
func TestLockHolderIsStoppedAndContinued(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := kind.start(t, 1)
			addrs := make([]string, servers.Len())
			for i, addr := range servers.Addrs() {
				addrs[i] = addr.String()
			}
			second, closed, err := kind.connect(addrs)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(closed)
			first := startHolder(t, name+" "+strings.Join(addrs, " "))
			token := first.says("has the lock", func(s said) bool { return s.Token > 0 }).Token
			first.says("writes", func(s said) bool { return s.Wrote })
			if err := first.Freeze(); err != nil {
				t.Fatal(err)
			}
			stopped := time.Now()

			ctx, cancel := context.WithTimeout(t.Context(), 3*Within)
			defer cancel()
			for held := (*dcs.HeldError)(nil); ; {
				err = dcs.Lock(ctx, second, lock, []byte("second"), func(ctx context.Context, _ dcs.Writer, v dcs.Version) error {
					t.Logf("the second has it after %v, token %d; the first had %d", time.Since(stopped).Round(time.Millisecond), v.Created, token)
					if v.Created <= token {
						t.Errorf("token %d after %d", v.Created, token)
					}
					if err := first.Thaw(); err != nil {
						return err
					}
					first.isRefused()
					snap, err := second.Get(ctx, filepath.Dir(lock))
					if err != nil {
						return err
					}
					if e, _ := snap.Get(lock); e.Version != v || string(e.Value) != "second" {
						t.Errorf("the lock is %q at %v, the second wrote %q at %v", e.Value, e.Version, "second", v)
					}
					return nil
				})
				if !errors.As(err, &held) && !errors.Is(err, dcs.ErrConflict) {
					break
				}
				if held != nil && !strings.HasPrefix(string(held.Holder.Value), "first") {
					t.Fatalf("the holder is %q", held.Holder.Value)
				}
				select {
				case <-ctx.Done():
					t.Fatalf("not free %v after its holder was stopped: %v", time.Since(stopped), err)
				case <-time.After(50 * time.Millisecond):
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// holder is a process that holds the lock.
type holder struct {
	*proc.Keeper
	t *testing.T
}

func startHolder(t *testing.T, store string) holder {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	starter := proc.NewStarter()
	k := &proc.Keeper{Starter: starter, Command: proc.Command{
		Name: "holder", Path: path, Env: []string{holderOf + "=" + store}, Dir: dir, Log: filepath.Join(dir, "said"),
	}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		starter.Close()
	})
	return holder{k, t}
}

// says waits until the holder has said something.
func (h holder) says(what string, ok func(said) bool) said {
	h.t.Helper()
	for deadline := time.Now().Add(Within); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(h.Command.Log)
		for line := range strings.Lines(string(b)) {
			var s said
			if json.Unmarshal([]byte(line), &s) == nil && ok(s) {
				return s
			}
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the holder has not said that it %s within %v: %s, %v", what, Within, b, err)
		}
	}
}

// isRefused checks how a holder that is not one any more learns of it.
func (h holder) isRefused() {
	h.t.Helper()
	h.t.Logf("late write: %s", h.says("was refused", func(s said) bool { return s.Late != "" }).Late)
	if s := h.says("was told", func(s said) bool { return s.Lost != "" }); !s.IsLost {
		h.t.Errorf("its context ended with %s", s.Lost)
	}
	if s := h.says("wrote without the lease", func(s said) bool { return s.Plain != "" }); !s.Conflict {
		h.t.Errorf("a write to the version that it knew: %s", s.Plain)
	}
	if s := h.says("returned", func(s said) bool { return s.End != "" }); !s.IsLost {
		h.t.Errorf("Lock returned %s", s.End)
	}
}
