package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// The components of a stack: of a node n1 "n1" (all of it), "n1/patroni" and "n1/postgres"; of a pooler pgb-1 "pgb-1"
// and "pgb-1/agent"; "cp-1", "envoy", and "etcd-1", "consul-1" or "zookeeper-1".
const (
	envoy        = "envoy"
	controlPlane = "cp-1"
)

// reserved tells the names that a node or a pooler of a stack on this store cannot have. The servers of a caller's store
// are known by such names too: Runner.Via has them.
func reserved(name string, store DCS) bool {
	program, number, _ := strings.Cut(name, "-")
	_, err := strconv.Atoi(number)
	return program == store.program() && err == nil || slices.Contains([]string{envoy, controlPlane, client, coordinator, replicas, poolers, peers}, name)
}

func database(node string) string      { return node + "/postgres" }
func manager(node string) string       { return node + "/patroni" }
func agentOf(pooler string) string     { return pooler + "/agent" }
func fileName(component string) string { return strings.ReplaceAll(component, "/", "-") }

// Components are the names of all components that can be signalled: those that are processes of their own.
func (s *Stack) Components() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.units {
		names = append(names, name)
	}
	for _, n := range s.spec.Nodes {
		names = append(names, manager(n.Name), database(n.Name))
	}
	slices.Sort(names)
	return names
}

// PID is the process of a component now: of "n1/postgres" the postmaster, of "n1" the one that reaps all others.
func (s *Stack) PID(component string) (int, error) {
	node, part, _ := strings.Cut(component, "/")
	u, err := s.unit(component)
	if err != nil {
		return 0, err
	}
	root := u.PID()
	switch {
	case root == 0:
		return 0, fmt.Errorf("local: %s is down", component)
	case part == "postgres":
		pid, err := postmaster(s.seen(root, s.dataDir(node)))
		if err == nil && !s.runs(pid, node) {
			err = fmt.Errorf("local: %s does not run; process %d was killed", component, pid)
		}
		return pid, err
	case part == "patroni":
		return patroniOf(component, root)
	}
	return root, nil
}

// Signal sends a signal to a component. What it ends is started again: a database by its Patroni, everything else by
// the stack.
func (s *Stack) Signal(component string, sig syscall.Signal) error {
	u, err := s.unit(component)
	if err != nil {
		return err
	}
	if component == u.Command.Name { // so that what it ends is not taken for a program that does not work
		if err := u.Signal(sig); err != nil {
			return fmt.Errorf("local: %w", err)
		}
		return nil
	}
	pid, err := s.PID(component)
	if err != nil {
		return err
	}
	if err := kill(pid, sig); err != nil {
		return fmt.Errorf("local: %s (process %d): %w", component, pid, err)
	}
	return nil
}

// Down ends a component with a signal, SIGKILL or SIGTERM, and keeps it from being started again until Up. It returns
// when it is gone, or with an error when ctx ends before. A killed node loses all its processes at once; a killed
// "n1/patroni" leaves its PostgreSQL behind. A "n1/postgres" cannot be kept down alone: its Patroni starts it again.
func (s *Stack) Down(ctx context.Context, component string, sig syscall.Signal) error {
	u, err := s.unit(component)
	if err != nil {
		return err
	}
	switch _, part, _ := strings.Cut(component, "/"); part {
	case "postgres":
		return fmt.Errorf("local: %s cannot be kept down: its Patroni starts it again; signal it, or take its node down", component)
	case "patroni":
		if sig != syscall.SIGKILL {
			break // it takes its PostgreSQL with it
		}
		pid, err := s.PID(component)
		if err != nil {
			return err
		}
		if err := u.Leave(ctx, pid); err != nil {
			return fmt.Errorf("local: %w", err)
		}
		return nil
	}
	var memory segment
	if _, ok := s.node(component); ok && sig == syscall.SIGKILL {
		memory = segmentOf(s.seen(u.PID(), s.dataDir(component)))
	}
	if err := u.Down(ctx, sig); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	memory.free()
	return nil
}

// Up starts a component that is down and returns when its process is there; of a node that is Patroni.
func (s *Stack) Up(ctx context.Context, component string) error {
	u, err := s.unit(component)
	if err != nil {
		return err
	}
	if err := u.Start(ctx); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	if _, ok := s.node(u.Command.Name); !ok {
		return nil
	}
	for {
		if _, err = s.PID(manager(u.Command.Name)); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Freeze stops all processes of a component where they are (SIGSTOP), until Thaw: of "n1/postgres" the postmaster and
// what it has started, of "n1/patroni" Patroni alone. Who is frozen does not notice.
func (s *Stack) Freeze(component string) error {
	pid, err := s.PID(component)
	if err != nil {
		return err
	}
	u, err := s.unit(component)
	if err != nil {
		return err
	}
	switch _, part, _ := strings.Cut(component, "/"); part {
	case "postgres", "patroni":
		return s.freezePart(component, part, pid)
	}
	if err := u.Freeze(); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return nil
}

func (s *Stack) freezePart(component, part string, pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.thaw[component] != nil {
		return fmt.Errorf("local: %s is frozen already", component)
	}
	if part == "postgres" {
		s.thaw[component] = proc.Freeze(pid)
		return nil
	}
	thaw, err := proc.FreezeOne(pid)
	if err != nil {
		return fmt.Errorf("local: %s (process %d): %w", component, pid, err)
	}
	s.thaw[component] = thaw
	return nil
}

// Thaw lets a frozen component go on.
func (s *Stack) Thaw(component string) error {
	u, err := s.unit(component)
	if err != nil {
		return err
	}
	switch _, part, _ := strings.Cut(component, "/"); part {
	case "postgres", "patroni":
		s.mu.Lock()
		defer s.mu.Unlock()
		thaw, frozen := s.thaw[component]
		if !frozen {
			return fmt.Errorf("local: %s is not frozen", component)
		}
		thaw()
		delete(s.thaw, component)
		return nil
	}
	if err := u.Thaw(); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return nil
}

// thawAll lets parts of nodes go on: who is frozen cannot end.
func (s *Stack) thawAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, thaw := range s.thaw {
		thaw()
	}
	clear(s.thaw)
}

// unit is what runs a component: for the parts of a node that of the node.
func (s *Stack) unit(component string) (*proc.Keeper, error) {
	name := component
	if node, part, ok := strings.Cut(component, "/"); ok && (part == "postgres" || part == "patroni") {
		name = node
	}
	s.mu.Lock()
	u, ok := s.units[name]
	s.mu.Unlock()
	if ok {
		return u, nil
	}
	if s.inProcess(component) {
		return nil, fmt.Errorf("local: %s runs in this process; with Runner.Roles it is one of its own", component)
	}
	return nil, fmt.Errorf("local: there is no component %q, but %s", component, strings.Join(s.Components(), ", "))
}

func (s *Stack) inProcess(component string) bool {
	if len(s.program) > 0 {
		return false
	}
	for _, p := range s.spec.Poolers {
		if component == agentOf(p.Name) {
			return true
		}
	}
	return component == controlPlane || slices.ContainsFunc(s.members, func(m member) bool { return m.name == component })
}

// supervise keeps a program of the stack running.
func (s *Stack) supervise(ctx context.Context, p *part, c proc.Command) {
	k := &proc.Keeper{Starter: s.starter, Command: c}
	if _, ok := s.node(c.Name); ok {
		k.Also = func() []int { return s.orphan(c.Name) }
	}
	s.mu.Lock()
	s.units[c.Name] = k
	s.mu.Unlock()
	p.wg.Go(func() {
		err := k.Run(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			s.fail(&stackError{c.Name, err})
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.errs = append(p.errs, err)
	})
}

func kill(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// postmaster is the process id in a data folder.
func postmaster(dataDir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("local: PostgreSQL does not run: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("local: postmaster.pid in %s holds no process id", dataDir)
	}
	return pid, nil
}

// patroniOf is the program that tini has started, and not one that it has inherited.
func patroniOf(component string, tini int) (int, error) {
	for _, pid := range proc.Tree(tini) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // gone meanwhile
		}
		if argv := strings.Split(string(b), "\x00"); pid != tini && len(argv) > 1 && filepath.Base(argv[1]) == launchFile {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("local: %s does not run", component)
}
