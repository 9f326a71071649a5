package topologytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// storeLeader is the place of the store's server that leads. It waits while none does: they elect one.
func (s *Stack) storeLeader(ctx context.Context) (int, error) {
	for {
		var errs []error
		for i, e := range s.r.DCS().Endpoints {
			leads, err := s.leads(ctx, e)
			if leads {
				return i, nil
			}
			errs = append(errs, err)
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(append(errs, fmt.Errorf("no server of %s leads: %w", s.program(), context.Cause(ctx)))...)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// leads asks one server, bounded.
func (s *Stack) leads(ctx context.Context, endpoint string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	switch s.program() {
	case "consul":
		return consulLeads(ctx, endpoint)
	case "zookeeper":
		return zooKeeperLeads(ctx, endpoint)
	}
	return etcdLeads(ctx, endpoint)
}

func etcdLeads(ctx context.Context, endpoint string) (bool, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return false, err
	}
	st, err := c.Status(ctx, endpoint)
	return err == nil && st.Leader == st.Header.MemberId, errors.Join(err, c.Close())
}

func consulLeads(ctx context.Context, endpoint string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/v1/agent/self", nil)
	if err != nil {
		return false, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	var self struct {
		Stats struct{ Raft struct{ State string } }
	}
	err = json.NewDecoder(resp.Body).Decode(&self)
	return err == nil && self.Stats.Raft.State == "Leader", errors.Join(err, resp.Body.Close())
}

func zooKeeperLeads(ctx context.Context, endpoint string) (bool, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // of an open connection
	}
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return false, err
	}
	b, err := io.ReadAll(conn)
	return strings.Contains(string(b), "\nMode: leader\n") || strings.Contains(string(b), "\nMode: standalone\n"), err
}
