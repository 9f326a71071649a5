package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

const (
	// How often the state of the connection is looked at while a session is awaited, and by a watch.
	readyEvery, lookEvery = 5 * time.Millisecond, 25 * time.Millisecond
	// After a connection the client first tells the server what it watches. What overtakes that could have events lost.
	settle = 20 * time.Millisecond
)

var (
	errClosed     = errors.New("the connection was closed")
	errNewSession = errors.New("the session expired meanwhile")
)

// unsent is the error of a call that was not handed to the client.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// call runs one call of the client, which takes no context, as soon as there is a session and a place. When ctx ends the
// call is left behind: it returns with the connection's next event.
func call[T any](ctx context.Context, s *Store, f func() (T, error)) (T, error) {
	if err := s.place(ctx); err != nil {
		var zero T
		return zero, err
	}
	return leave(ctx, s, func() (T, error) {
		defer func() { <-s.slots }()
		return f()
	})
}

// place waits for a session and a place. Its error is an unsent one.
func (s *Store) place(ctx context.Context) error {
	for {
		if err := s.ready(ctx); err != nil {
			return err
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return unsent{fmt.Errorf("%w: %d calls are without an answer (%s)", context.Cause(ctx), maxCalls, s.connection())}
		}
		if s.conn.State() == zk.StateHasSession {
			return nil
		}
		<-s.slots
	}
}

// leave runs f until ctx ends, without it after.
func leave[T any](ctx context.Context, s *Store, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := f()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("%w: no answer (%s)", context.Cause(ctx), s.connection())
	}
}

// ready waits for a session. Its error is an unsent one.
func (s *Store) ready(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return unsent{err}
	}
	if s.conn.State() == zk.StateHasSession {
		return nil
	}
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return unsent{fmt.Errorf("%w: no connection (%s)", context.Cause(ctx), s.connection())}
		case <-tick.C:
		}
		switch {
		case s.conn.State() == zk.StateHasSession:
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
			if s.conn.State() == zk.StateHasSession {
				return nil
			}
		case s.closed():
			return unsent{errClosed}
		}
	}
}

// again repeats a read, which changes nothing, until it succeeds, is hopeless, or ctx has ended: a connection that moves
// to another server takes what is under way with it.
func again(ctx context.Context, read func() error) error {
	for n := 1; ; n++ {
		err := read()
		if err == nil || hopeless(err) || ctx.Err() != nil {
			return err
		}
		if !retry.Wait(ctx, retry.Backoff(n)) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// closed reports whether the caller has closed the connection. Nothing says so but this: it is in no state to connect,
// and a call does not wait.
func (s *Store) closed() bool {
	for range 2 { // a connection that was had and lost again within the first answers alike
		if !s.seemsClosed() {
			return false
		}
	}
	return true
}

func (s *Store) seemsClosed() bool {
	if s.conn.State() != zk.StateDisconnected {
		return false
	}
	select {
	case s.probing <- struct{}{}:
	default:
		return false
	}
	answers := make(chan error, 1)
	go func() {
		_, _, err := s.conn.Exists("/") // changes nothing if it is sent after all
		<-s.probing
		answers <- err
	}()
	select {
	case err := <-answers:
		return errors.Is(err, zk.ErrConnectionClosed) && s.conn.State() == zk.StateDisconnected
	case <-time.After(lookEvery):
		return false
	}
}

// connection is a remark on the connection, for errors.
func (s *Store) connection() string {
	server, state := s.conn.Server(), s.conn.State()
	switch {
	case server == "":
		return "no server was tried yet"
	case state == zk.StateHasSession:
		return fmt.Sprintf("server %s", server)
	case state == zk.StateConnecting, state == zk.StateConnected:
		return fmt.Sprintf("connecting to %s; check the servers' addresses, and that a majority of them is up", server)
	default:
		return fmt.Sprintf("last server %s, %s", server, state)
	}
}

// each runs f for all keys, several at a time, and returns the results in order, or the first error.
func each[T any](ctx context.Context, keys []string, f func(ctx context.Context, key string) (T, error)) ([]T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]T, len(keys))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(maxReads, len(keys)) {
		wg.Go(func() {
			for i := range next {
				v, err := f(ctx, keys[i])
				if err != nil {
					cancel(err)
					return
				}
				results[i] = v
			}
		})
	}
	for i := range keys {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return results, nil
}
