package proc

import (
	"context"
	"fmt"
	"slices"
	"syscall"
)

// Down ends the program and does not start it again before Start. It returns when all of it is gone.
//
// SIGKILL ends the program and all its descendants in one moment, like a power failure: all are stopped before the
// first is killed, so that none sees another's end. Any other signal goes to the program itself, which has until ctx
// ends; what it leaves behind is then killed. A program that is frozen goes on once it has the signal, to act on it.
//
// When ctx ends first the error says so, and the program is not started again all the same: call Down once more, with
// SIGKILL.
func (k *Keeper) Down(ctx context.Context, sig syscall.Signal) error {
	k.mu.Lock()
	p, err := k.hold()
	if p == nil {
		k.mu.Unlock()
		return err
	}
	all := k.tree(p)
	if sig == syscall.SIGKILL {
		all, _ = halt(all) // what cannot be stopped cannot be killed: seen below
		kill(all)
	} else {
		p.signal(sig)
		resume(all)
	}
	k.frozen = nil
	k.mu.Unlock()

	if err := k.gone(ctx, p); err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		all, _ = halt(present(all))
		kill(all)
	}
	if err := buried(all, ctx.Done()); err != nil {
		return fmt.Errorf("%s has ended and stays down, but not all of it is gone: %w", k.Command.Name, err)
	}
	return nil
}

// Leave kills one process of the program, with whose end the program ends, and does not start it again before Start.
// All others live on, without a parent: so a database without its Patroni. It returns when the program is gone; when
// ctx ends first the error says so, and the program is not started again all the same.
func (k *Keeper) Leave(ctx context.Context, pid int) error {
	k.mu.Lock()
	if err := k.signalable(); err != nil {
		k.mu.Unlock()
		return err
	}
	all := k.tree(k.p)
	i := slices.IndexFunc(all, func(p process) bool { return p.pid == pid })
	if i < 0 {
		k.mu.Unlock()
		return fmt.Errorf("process %d is not one of %s (process %d)", pid, k.Command.Name, k.p.PID)
	}
	p, err := k.hold()
	if err != nil {
		k.mu.Unlock()
		return err
	}
	kill(all[i : i+1])
	resume(all)
	k.frozen = nil
	k.mu.Unlock()
	return k.gone(ctx, p)
}

// hold keeps the program from being started, and returns what runs of it; nil: nothing.
func (k *Keeper) hold() (*Process, error) {
	if k.over {
		return nil, k.overError()
	}
	if k.held && k.p == nil {
		return nil, fmt.Errorf("%s is down already", k.Command.Name)
	}
	k.held, k.early = true, 0
	k.change()
	return k.p, nil
}

// gone waits until a process has ended.
func (k *Keeper) gone(ctx context.Context, p *Process) error {
	if err := k.await(ctx, func() bool { return k.p != p }); err != nil {
		return fmt.Errorf("%s (process %d) has not ended in time; SIGKILL ends it, and it is not started again: %w",
			k.Command.Name, p.PID, err)
	}
	return nil
}

// Start lets a program that is held down run again. It returns when the new process is there. When ctx ends first the
// error says so, and the program is started all the same.
func (k *Keeper) Start(ctx context.Context) error {
	before, err := k.release()
	if err != nil {
		return err
	}
	if err := k.await(ctx, func() bool { return k.starts != before || k.over || k.held }); err != nil {
		return fmt.Errorf("%s has not started in time: %w", k.Command.Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.starts != before:
		return nil
	case k.over:
		return k.overError()
	}
	return fmt.Errorf("%s was taken down again before it started", k.Command.Name)
}

// release ends a hold, and returns the number of starts before.
func (k *Keeper) release() (starts int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := k.Command.Name
	switch {
	case k.over:
		return 0, k.overError()
	case !k.held:
		return 0, fmt.Errorf("%s is up already", name)
	case k.p != nil:
		return 0, fmt.Errorf("%s (process %d) has not ended yet; SIGKILL ends it", name, k.p.PID)
	}
	k.held = false
	k.change()
	return k.starts, nil
}

func (k *Keeper) overError() error {
	if k.err != nil {
		return fmt.Errorf("%s is not run any more: %w", k.Command.Name, k.err)
	}
	return fmt.Errorf("%s is not run any more", k.Command.Name)
}
