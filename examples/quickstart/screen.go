package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// screen prints lines with the time since the start, and below them one line that changes. Where the output is not a
// terminal the changing line becomes a plain one each second.
type screen struct {
	mu    sync.Mutex
	out   *os.File
	live  bool // a terminal
	began time.Time
	line  string    // the changing line; empty: none
	shown time.Time // when a plain line was printed last
}

func newScreen(out *os.File) *screen {
	st, err := out.Stat()
	return &screen{out: out, live: err == nil && st.Mode()&os.ModeCharDevice != 0, began: time.Now()}
}

// Write prints above the changing line.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	n, err := s.out.Write(p)
	if s.live && s.line != "" {
		_, _ = io.WriteString(s.out, s.line) // a line for the eye
	}
	return n, err
}

func (s *screen) clear() {
	if s.live && s.line != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
	}
}

func (s *screen) say(what string) {
	fmt.Fprintf(s, "%6.2f s  %s\n", time.Since(s.began).Seconds(), what)
}

func (s *screen) waitFor(what string) { s.say("waiting for " + what) }

// rest ends the changing line.
func (s *screen) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.line = ""
}

func (s *screen) change(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.clear()
		s.line = line
		_, _ = io.WriteString(s.out, line)
		return
	}
	if time.Since(s.shown) >= time.Second {
		s.shown = time.Now()
		_, _ = io.WriteString(s.out, line+"\n")
	}
}

// follow shows the clients' counts and each change of the view until ctx ends; then the channel is closed.
func (s *screen) follow(ctx context.Context, stack *local.Stack, l *ledger.Ledger) <-chan struct{} {
	var wg sync.WaitGroup
	wg.Go(func() {
		last := ""
		for v, err := range stack.Observer().Watch(ctx) {
			if err != nil {
				return
			}
			if now := summary(v); now != last {
				last = now
				s.say(now)
			}
		}
	})
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				s.rest()
				return
			case <-tick.C:
				c := l.Now()
				s.change(fmt.Sprintf("%6.2f s  %d acknowledged, %d failed, %d under way, last acknowledged %d ms ago",
					time.Since(s.began).Seconds(), c.Acknowledged, c.Failed, c.Waiting, c.SinceAck.Milliseconds()))
			}
		}
	})
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	return done
}

// summary is a view in one line: who leads, and what the write poolers do.
func summary(v topology.View) string {
	leader := v.Leadership.Member
	if leader == "" {
		leader = "nobody"
	}
	var line strings.Builder
	fmt.Fprintf(&line, "view: %s leads (%s, timeline %d), write poolers", leader, v.Leadership.Phase, v.Leadership.Epoch.Timeline)
	for _, p := range v.Poolers {
		if p.Service == topology.Write.String() {
			line.WriteString(" " + string(p.State))
		}
	}
	if v.Operation != nil {
		line.WriteString(", operation in phase " + v.Operation.Phase)
	}
	return line.String()
}
