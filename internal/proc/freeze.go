package proc

import (
	"fmt"
	"syscall"
)

// Signal sends a signal to the program itself, not to its descendants.
func (k *Keeper) Signal(sig syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.signalable(); err != nil {
		return err
	}
	k.early = 0 // what ends of this does not end by itself
	if err := k.p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s (process %d): %w", k.Command.Name, k.p.PID, err)
	}
	return nil
}

// Freeze stops the program and all its descendants (SIGSTOP) until Thaw. It returns when none of them runs, but for
// one that waits for a disk: that one stops when its wait is over.
func (k *Keeper) Freeze() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.signalable(); err != nil {
		return err
	}
	if k.held {
		return fmt.Errorf("%s is about to end", k.Command.Name)
	}
	if k.frozen != nil {
		return fmt.Errorf("%s is frozen already", k.Command.Name)
	}
	all, err := halt(k.tree(k.p))
	k.frozen = all
	if err != nil {
		return fmt.Errorf("%s is not frozen as a whole: %w", k.Command.Name, err)
	}
	return nil
}

// Thaw lets a frozen program and all its descendants go on (SIGCONT).
func (k *Keeper) Thaw() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.signalable(); err != nil {
		return err
	}
	if k.frozen == nil {
		return fmt.Errorf("%s is not frozen", k.Command.Name)
	}
	resume(k.frozen)
	k.frozen = nil
	return nil
}

// signalable says why there is nothing to send a signal to.
func (k *Keeper) signalable() error {
	switch {
	case k.over:
		return k.overError()
	case k.p != nil:
		return nil
	case k.held:
		return fmt.Errorf("%s is down", k.Command.Name)
	}
	return fmt.Errorf("%s is about to be started", k.Command.Name)
}

// State is what a keeper's program does.
type State string

// The states of a program.
const (
	Starting State = "starting" // before its first start, or between two
	Running  State = "running"
	Frozen   State = "frozen" // by Freeze
	Ending   State = "ending" // Down has not returned, or its time was too short
	Held     State = "down"   // until Start
	Over     State = "over"   // Run has ended, or ends
)

// State is what the program does now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over:
		return Over
	case k.p == nil && k.held:
		return Held
	case k.p == nil:
		return Starting
	case k.held:
		return Ending
	case k.frozen != nil:
		return Frozen
	}
	return Running
}

// PID is the program's process now; 0: there is none.
func (k *Keeper) PID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.p == nil {
		return 0
	}
	return k.p.PID
}
