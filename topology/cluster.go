package topology

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Cluster is what all roles share. It is plain data: copy it into each role.
type Cluster struct {
	Path    string         // Patroni's namespace and scope: "/service/demo"
	Store   dcs.Store      // where Patroni's state is, and ours
	Leaders LeaderSource   // nil: a patroni.Source over Store with Prober
	Prober  patroni.Prober // asks a server whether it is writable; nil: only with Leaders of your own
	Logger  *slog.Logger   // nil: silent
}

func (c Cluster) validate(role string) error {
	var errs []error
	if err := CheckPath(c.Path); err != nil {
		errs = append(errs, fmt.Errorf("topology: %s.%w", role, err))
	}
	if c.Store == nil {
		errs = append(errs, fmt.Errorf("topology: %s.Store is missing", role))
	}
	if c.Leaders == nil && c.Prober == nil {
		errs = append(errs, fmt.Errorf("topology: %s.Prober is missing: without it no primary is ever proven (or give Leaders)", role))
	}
	return errors.Join(errs...)
}

// CheckPath refuses what is not /namespace/scope, or /namespace/scope/group with Citus.
func CheckPath(path string) error {
	if err := dcs.CheckKey("path", path); err != nil {
		return fmt.Errorf("Path: %w", err)
	}
	parts := strings.Split(path[1:], "/")
	group := len(parts) == 3 && strings.Trim(parts[2], "0123456789") == ""
	if len(parts) != 2 && !group {
		return fmt.Errorf("Path %q is not /namespace/scope: a scope has no slash", path)
	}
	return nil
}

// leaders is the source of leadership; how says what the default one looks at beyond the primary.
func (c Cluster) leaders(how patroni.Source) LeaderSource {
	if c.Leaders != nil {
		return c.Leaders
	}
	how.Store, how.Path, how.Prober = c.Store, c.Path, c.Prober
	return &how
}

func (c Cluster) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// orEnded is the reason why a watch ended: a sequence that just stops, against its contract, has none.
func orEnded(err error) error {
	if err == nil {
		return errors.New("a watch ended without a reason")
	}
	return err
}

// once refuses a second concurrent Run of one role.
type once struct{ running atomic.Bool }

func (o *once) enter(role string) error {
	if !o.running.CompareAndSwap(false, true) {
		return fmt.Errorf("topology: this %s is already running", role)
	}
	return nil
}

func (o *once) leave() { o.running.Store(false) }

// retry calls f until it succeeds or ctx ends, with pauses that grow from 50 ms to 1 s; failed is told of each error.
func retry(ctx context.Context, f func(context.Context) error, failed func(error)) {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		failed(err)
		if time.Since(began) > 10*time.Second {
			pause = 50 * time.Millisecond // it worked for a while
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// thisProcess names this process in records, for people.
func thisProcess() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

// lately is what was logged last, so that trouble that stays is said once a minute and not at each attempt.
type lately struct {
	text string
	at   time.Time
}

// news reports whether a text is to be logged, and keeps it in mind.
func (l *lately) news(text string) bool {
	if text == l.text && time.Since(l.at) < time.Minute {
		return false
	}
	l.text, l.at = text, time.Now()
	return true
}
