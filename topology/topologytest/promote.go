package topologytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Promote makes a replica a primary behind the back of its Patroni, which stands still meanwhile: two nodes claim to be
// the primary. The undo lets Patroni go on, and has it make the node anew: to a Patroni whose PostgreSQL is ahead of the
// leader's timeline that seems to be a person's decision.
func (s *Stack) Promote(node string) Undo {
	s.t.Helper()
	manager := node + "/patroni"
	return s.inject("promote "+node, func(ctx context.Context) error {
		if err := s.r.Freeze(manager); err != nil {
			return err
		}
		if err := exec(ctx, s.r.SuperuserDSN(node), "SELECT pg_promote()"); err != nil {
			return &halfError{err}
		}
		return nil
	}, func(ctx context.Context) error {
		if err := s.r.Thaw(manager); err != nil {
			return err
		}
		return s.reinitialize(ctx, node)
	})
}

// reinitialize has a node's Patroni make its data anew, once it agrees to: there must be a leader, and it is not that.
func (s *Stack) reinitialize(ctx context.Context, node string) error {
	var api string
	for _, n := range s.Spec().Nodes {
		if n.Name == node {
			api = n.API.String()
		}
	}
	for {
		err := s.askReinitialize(ctx, api)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("making %s anew: %w", node, errors.Join(context.Cause(ctx), err))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Stack) askReinitialize(ctx context.Context, api string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+api+"/reinitialize", strings.NewReader(`{"force": true}`))
	if err != nil {
		return err
	}
	c := s.r.Patroni()
	req.SetBasicAuth(c.Username, string(c.Password))
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}
