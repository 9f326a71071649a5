package proc

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Keeper keeps one program running until its Run ends, and can hold it down or still meanwhile. Its fields are not
// changed after Run has begun. All methods but Run may be called at any time from any goroutine.
type Keeper struct {
	Starter *Starter
	Command Command
	// Up is told of each start, before a waiting Start returns. nil: nobody.
	Up func(pid int)
	// Also are processes that belong to the program although they do not descend from it, such as a database that has
	// outlived whoever started it: Down and Freeze mean them too. It must not call the keeper. nil: none.
	Also func() []int

	mu      sync.Mutex
	p       *Process      // nil: none now
	held    bool          // down, or to stay down once it has ended, until Start
	frozen  []process     // what Freeze stopped; nil: not frozen
	early   int           // ends in a row, each soon after its start
	starts  int           // that Up was told of
	over    bool          // Run has ended, or is about to
	err     error         // of Run
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// What ends sooner than this after its start, this often in a row, is broken.
const (
	earlyEnd  = 2 * time.Second
	earlyEnds = 5
)

// Run keeps the program running until ctx ends, then stops it as its Command says: one that ends by itself is started
// again. It returns an error when the program cannot be started, ends five times in a row within two seconds, or had to
// be killed at last, with all that it had started. What a program leaves behind that ends by itself, or when it is
// asked to, is its owner's. Run is called once.
func (k *Keeper) Run(ctx context.Context) error {
	err := k.run(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.p, k.over, k.err = nil, true, err
	k.change()
	return err
}

func (k *Keeper) run(ctx context.Context) error {
	for {
		if err := k.await(ctx, func() bool { return !k.held }); err != nil || ctx.Err() != nil {
			return nil
		}
		p, err := k.start()
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		began := time.Now()
		select {
		case <-ctx.Done():
			return k.stop(p)
		case <-p.Gone():
		}
		early := k.ended(time.Since(began))
		if early == earlyEnds {
			c := k.Command
			return fmt.Errorf("%s (%s) ends as soon as it is started (%w): %s", c.Name, c.Path, p.Err(), Tail(c.Log, 10))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(early) * 100 * time.Millisecond):
		}
	}
}

// start starts the program; nil: it is held down since.
func (k *Keeper) start() (*Process, error) {
	p, err := k.startUnlessHeld()
	if p == nil || err != nil {
		return nil, err
	}
	if k.Up != nil {
		k.Up(p.PID)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.starts++
	k.change()
	return p, nil
}

func (k *Keeper) startUnlessHeld() (*Process, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held {
		return nil, nil
	}
	p, err := k.Starter.Start(k.Command)
	if err != nil {
		return nil, err
	}
	k.p = p
	return p, nil
}

// ended takes note of a process that is gone after a life, and returns how many have ended early in a row. What it left
// behind frozen goes on: nobody would find it later.
func (k *Keeper) ended(life time.Duration) (early int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	resume(k.frozen)
	k.frozen, k.p = nil, nil
	k.change()
	switch {
	case k.held:
		return 0
	case life > earlyEnd:
		k.early = 0
	}
	k.early++
	return k.early
}

// stop asks the program to end, and kills all of it when it does not within its grace. It returns when it is gone.
func (k *Keeper) stop(p *Process) error {
	c := k.Command
	sig, grace := c.Stop, c.Grace
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if grace == 0 {
		grace = 10 * time.Second
	}
	k.mu.Lock()
	k.over = true
	p.signal(sig)
	resume(k.tree(p)) // whoever is stopped does not hear that it is to end
	k.mu.Unlock()
	if mutant.Is("law14-processes-are-awaited") {
		return nil
	}
	select {
	case <-p.Gone():
		return nil
	case <-time.After(grace):
	}
	all, _ := halt(k.tree(p)) // what cannot be stopped cannot be killed: seen below
	kill(all)
	<-p.Gone()
	if err := buried(all, time.After(settle)); err != nil {
		return fmt.Errorf("%s did not end within %s and was killed, but not all of it: %w", c.Name, grace, err)
	}
	return fmt.Errorf("%s did not end within %s and was killed; its log is %s", c.Name, grace, c.Log)
}

// tree is all that belongs to a process of the program, parents first.
func (k *Keeper) tree(p *Process) []process {
	roots := []int{p.PID}
	if k.Also != nil {
		roots = append(roots, k.Also()...)
	}
	return descent(roots...)
}

// await waits until what ok looks at, under the lock, is so.
func (k *Keeper) await(ctx context.Context, ok func() bool) error {
	for {
		k.mu.Lock()
		if ok() {
			k.mu.Unlock()
			return nil
		}
		if k.changed == nil {
			k.changed = make(chan struct{})
		}
		changed := k.changed
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// change wakes who waits in await.
func (k *Keeper) change() {
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}
