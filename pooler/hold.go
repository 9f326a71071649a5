package pooler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Hold makes new transactions wait and returns nil when no server connection is in use any more. It is idempotent:
// a pooler that is held already is success once it is drained.
//
// The pooler is held from the moment the PAUSE is sent, before Hold returns, and stays held when ctx ends: the error
// then wraps ctx's, and a Route, or a RESUME by hand, lets it go. A session-mode client that stays connected, or an
// open transaction, keeps a drain waiting as long as it lasts. ErrReleased: somebody resumed the pooler meanwhile.
// A restart of PgBouncer loses the hold.
func (l *Local) Hold(ctx context.Context) error { return l.hold(ctx, false) }

// HoldNow is Hold for a server that is lost: each millisecond without a hold is one in which PgBouncer answers clients
// with errors, and logins cannot succeed. So the PAUSE is the first thing that is sent; nothing is looked at before,
// and no login is waited for.
func (l *Local) HoldNow(ctx context.Context) error { return l.hold(ctx, true) }

func (l *Local) hold(ctx context.Context, now bool) error {
	s, err := l.open(ctx, "hold")
	if err != nil {
		return err
	}
	defer s.close()
	// The file is not asked, so that one that somebody broke keeps no hold away. A global PAUSE drains all there is.
	f := targetFile{names: l.Databases, wildcard: len(l.Databases) == 0}
	v := live{scope: f.scope(), unpaused: l.Databases}
	p := &pauses{answers: make(chan int, len(l.Databases)+1)}
	defer p.end()
	if now {
		if err := p.send(ctx, s, &v); err != nil {
			return s.fail(err, "nothing was held")
		}
		return s.awaitDrain(ctx, f, &v, p)
	}
	if err := s.lookAgain(ctx, f, &v); err != nil {
		return s.fail(err, "")
	}
	if v.global == "suspended" {
		return s.fail(errors.New("the pooler is suspended"), "RESUME it first")
	}
	if v.drained() {
		return nil
	}
	if !v.heldWhole() {
		if len(l.Databases) == 0 { // else the setting belongs to others too
			defer s.stopGrowth(ctx)()
		}
		if err := s.lookActivity(ctx, &v); err != nil {
			return s.fail(err, "nothing was held")
		}
		if err := s.awaitLogins(ctx, &v); err != nil {
			return s.fail(err, "nothing was held")
		}
		if err := p.send(ctx, s, &v); err != nil {
			return s.fail(err, "nothing was held")
		}
	}
	return s.awaitDrain(ctx, f, &v, p)
}

// stopGrowth keeps pools that have a server from opening another one, so that no login begins between the look that
// finds none and the PAUSE. What it returns undoes that; a RELOAD does so too. It is an attempt: where a database has a
// pool_size of its own, or the console refuses, only the look is left.
func (s *session) stopGrowth(ctx context.Context) (undo func()) {
	type setting struct {
		Key   string `show:"key"`
		Value string `show:"value"`
	}
	settings, err := show[setting](ctx, s, "CONFIG")
	i := slices.IndexFunc(settings, func(c setting) bool { return c.Key == "default_pool_size" })
	if err != nil || i < 0 || s.set(ctx, "default_pool_size", "1") != nil {
		return func() {}
	}
	return func() {
		ctx := context.WithoutCancel(ctx) // also after a hold that was given up
		if s.console == nil {
			c, err := s.dial(ctx)
			if err != nil {
				return // PgBouncer is gone, and the setting with it
			}
			s.console = c
		}
		_ = s.set(ctx, "default_pool_size", settings[i].Value) // the next RELOAD does it
	}
}

// awaitLogins waits, bounded, for a moment without a server connection in login.
func (s *session) awaitLogins(ctx context.Context, v *live) error {
	wait := s.l.LoginWait
	if wait == 0 {
		wait = 200 * time.Millisecond
	}
	for end := time.Now().Add(wait); v.logins > 0 && time.Now().Before(end); {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("waiting for a server in login: %w", err)
		}
		if err := s.lookActivity(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// pauses are the blocking PAUSE commands of one Hold, each on a console connection of its own, since nothing else
// can be asked there before the answer, which may never come.
type pauses struct {
	consoles []*Console // nil once answered
	results  []error    // by console, valid once answered
	answers  chan int   // index of a console that was answered; buffered for all
	wait     sync.WaitGroup
}

// send starts one PAUSE, or one for each database that is not paused. The session's own console carries the first,
// so that the hold begins as soon as can be; the session is left without one.
func (p *pauses) send(ctx context.Context, s *session, v *live) error {
	commands := [][]string{nil}
	if len(s.l.Databases) > 0 {
		commands = nil
		for _, name := range v.unpaused {
			commands = append(commands, []string{name})
		}
		if len(commands) == 0 {
			return fmt.Errorf("the running pooler has none of the databases %q", s.l.Databases)
		}
	}
	for range commands[1:] {
		c, err := s.dial(ctx)
		if err != nil {
			return err
		}
		p.consoles = append(p.consoles, c)
	}
	p.consoles = append(p.consoles, s.console)
	s.console = nil
	p.results = make([]error, len(commands))
	for i, args := range commands {
		c := p.consoles[i]
		p.wait.Go(func() {
			p.results[i] = c.Exec(ctx, "PAUSE", args...)
			p.answers <- i
		})
	}
	return nil
}

// end closes the connections, which undoes nothing, and waits for the goroutines.
func (p *pauses) end() {
	for _, c := range p.consoles {
		if c != nil {
			_ = c.conn.Close() // not Close: a goroutine still uses it
		}
	}
	p.wait.Wait()
}

// awaitDrain returns when the pooler is drained. It looks when a PAUSE is answered, and now and then, because an
// answer may never come (somebody resumed) or mean something else (any completion answers every waiting console).
func (s *session) awaitDrain(ctx context.Context, f targetFile, v *live, p *pauses) error {
	seenHeld := v.heldWhole()
	pending := len(p.consoles)
	late := time.Now().Add(s.l.timeout()) // by now every PAUSE that was sent was in effect, seen or not
	for tick := time.Millisecond; ; tick = min(2*tick, 50*time.Millisecond) {
		timer := time.NewTimer(tick)
		select {
		case i := <-p.answers:
			pending--
			if err := p.results[i]; err != nil && !alreadyPaused(err) {
				timer.Stop()
				return s.holdFailed(ctx, v, err)
			}
			if s.console == nil { // an answered console is as good as a new one
				s.console = p.consoles[i]
			} else {
				_ = p.consoles[i].Close()
			}
			p.consoles[i] = nil
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return s.holdFailed(ctx, v, err)
		}
		if s.console == nil && tick < 20*time.Millisecond {
			continue // the answer is probably on its way: no login for a look
		}
		if s.console == nil {
			c, err := s.dial(ctx)
			if err != nil {
				return s.holdFailed(ctx, v, err)
			}
			s.console = c
		}
		if err := s.lookAgain(ctx, f, v); err != nil {
			return s.holdFailed(ctx, v, err)
		}
		switch {
		case v.drained():
			return nil
		case v.heldWhole():
			seenHeld = true
		case seenHeld || pending == 0 || time.Now().After(late): // who resumes a pooler leaves its PAUSE unanswered
			return s.fail(ErrReleased, "")
		}
	}
}

// lookAgain reads what changes during a hold.
func (s *session) lookAgain(ctx context.Context, f targetFile, v *live) error {
	if len(s.l.Databases) > 0 {
		if err := s.lookDatabases(ctx, f, v); err != nil {
			return err
		}
	}
	return s.lookActivity(ctx, v)
}

// holdFailed is the error of a Hold that has sent its PAUSE. An ended context is named with what it waited for.
func (s *session) holdFailed(ctx context.Context, v *live, err error) error {
	const hint = "the pooler stays held; Route or RESUME lets it go"
	if _, refused := errors.AsType[*CommandError](err); refused {
		return s.fail(err, "the console's user must be in admin_users")
	}
	if ctx.Err() == nil {
		return s.fail(err, hint)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(v.inUse)) {
		parts = append(parts, fmt.Sprintf("%d of %s", v.inUse[name], name))
	}
	return s.fail(fmt.Errorf("PAUSE sent, not drained: server connections in use: %s: %w", strings.Join(parts, ", "), ended(ctx)), hint)
}

func alreadyPaused(err error) bool {
	refused, ok := errors.AsType[*CommandError](err)
	return ok && strings.Contains(refused.Message, "already suspended/paused")
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}
