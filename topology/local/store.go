package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// store is where a stack's state is.
type store struct {
	kind      string   // "embedded" or "etcd"
	endpoints []string // URLs
	store     dcs.Store
	close     func() error
}

// hosts are the endpoints as host:port.
func (s *store) hosts() []string {
	var hosts []string
	for _, e := range s.endpoints {
		hosts = append(hosts, strings.TrimPrefix(e, "http://"))
	}
	return hosts
}

func (s *Stack) openStore(ctx context.Context) (*store, error) {
	if len(s.etcd) > 0 {
		return s.openEtcd(ctx)
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: filepath.Join(s.folder.dir, "etcd"), NoSync: s.folder.throwaway, Log: s.logFile("etcd"),
	})
	if err != nil {
		return nil, &stackError{"the embedded etcd", err}
	}
	return &store{kind: "embedded", endpoints: []string{server.Endpoint()}, store: server.Store(), close: server.Close}, nil
}

// openEtcd uses the caller's etcd. A throwaway stack takes a path that nobody uses there, and removes it at the end.
func (s *Stack) openEtcd(ctx context.Context) (*store, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: s.etcd, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("local: Runner.Etcd: %w", err)
	}
	st := &store{kind: "etcd", store: etcd.New(client), close: client.Close}
	for _, e := range s.etcd {
		st.endpoints = append(st.endpoints, "http://"+strings.TrimPrefix(e, "http://"))
	}
	gctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	snap, err := st.store.Get(gctx, s.spec.Path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("local: Runner.Etcd %s does not answer: %w", strings.Join(s.etcd, ","), err), client.Close())
	}
	if !s.folder.throwaway {
		return st, nil
	}
	for e := range snap.All(s.spec.Path) {
		return nil, errors.Join(fmt.Errorf("local: Spec.Path %s is in use in the etcd at %s (%s is there); give another path, or the Dir of that cluster",
			s.spec.Path, strings.Join(s.etcd, ","), e.Key), client.Close())
	}
	st.close = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, err1 := client.Delete(ctx, dcs.Prefix(s.spec.Path), clientv3.WithPrefix())
		_, err2 := client.Delete(ctx, dcs.Prefix(record.Dir(s.spec.Path)), clientv3.WithPrefix())
		return errors.Join(err1, err2, client.Close())
	}
	return st, nil
}
