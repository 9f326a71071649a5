package topologytest

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// LoseQuorum kills so many of the store's servers that the rest is no majority, the first ones by name; with one server that is
// the store itself. The undo starts them again.
func (s *Stack) LoseQuorum() Undo {
	s.t.Helper()
	var down []string
	return s.inject("lose the quorum", func(ctx context.Context) error {
		members := s.members()
		for _, m := range members[:(len(members)+1)/2] {
			if err := s.r.Down(ctx, m, syscall.SIGKILL); err != nil {
				return &halfError{err}
			}
			down = append(down, m)
		}
		return nil
	}, func(ctx context.Context) error {
		var errs []error
		for _, m := range down {
			errs = append(errs, s.r.Up(ctx, m))
		}
		return errors.Join(errs...)
	})
}

// members are the names of the store's servers.
func (s *Stack) members() []string {
	var names []string
	for i := range s.r.DCS().Endpoints {
		names = append(names, fmt.Sprintf("%s-%d", s.program(), i+1))
	}
	return names
}

// program is what the store's servers are named for.
func (s *Stack) program() string {
	if kind := s.r.DCS().Kind; kind == "consul" || kind == "zookeeper" {
		return kind
	}
	return "etcd"
}

// store is a pattern for all servers of the store.
func (s *Stack) store() string { return s.program() + "-*" }

// StoreLeader is the name of the store's server that leads.
func (s *Stack) StoreLeader() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), s.o.limit())
	defer cancel()
	i, err := s.storeLeader(ctx)
	if err != nil {
		s.t.Fatalf("topologytest: the store's leader: %v", err)
	}
	return s.members()[i]
}

// MoveStoreLeader has another etcd server lead, in an orderly way. (Kill StoreLeader for the other way.)
func (s *Stack) MoveStoreLeader() {
	s.t.Helper()
	s.mark("move the etcd leader")
	s.etcd("moving the etcd servers' leader", func(ctx context.Context, c *clientv3.Client) error {
		i, err := s.storeLeader(ctx)
		if err != nil {
			return err
		}
		c.SetEndpoints(c.Endpoints()[i]) // the leader itself must be asked
		list, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range list.Members {
			if m.ID != list.Header.MemberId {
				_, err = c.MoveLeader(ctx, m.ID)
				return err
			}
		}
		return errors.New("there is one server only; Options.Members makes more")
	})
}

// CompactStore makes etcd forget all past revisions: watches that are behind are cancelled.
func (s *Stack) CompactStore() {
	s.t.Helper()
	s.mark("compact etcd")
	s.etcd("compacting etcd", func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/", clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		return err
	})
}

func (s *Stack) etcd(what string, do func(ctx context.Context, c *clientv3.Client) error) {
	s.t.Helper()
	if s.program() != "etcd" {
		s.t.Fatalf("topologytest: %s: the store is %s; Options.DCS \"embedded\" makes it etcd", what, s.program())
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), s.o.limit())
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: s.r.DCS().Endpoints, Logger: zap.NewNop()})
	if err == nil {
		err = errors.Join(do(ctx, c), c.Close())
	}
	if err != nil {
		s.t.Fatalf("topologytest: %s: %v", what, err)
	}
}
