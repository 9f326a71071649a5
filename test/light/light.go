// Package light stands for a program that watches a cluster and does nothing else. It is a module of its own: what such
// a program has to require is in its go.mod.
package light

import (
	"context"
	"fmt"
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// FollowEtcd is Follow for a cluster in etcd.
func FollowEtcd(ctx context.Context, client *clientv3.Client, path string, out io.Writer) error {
	return Follow(ctx, etcd.New(client), path, out)
}

// Follow prints the leader of a cluster each time that it changes, until ctx ends.
func Follow(ctx context.Context, store dcs.Reader, path string, out io.Writer) error {
	leader := ""
	for c, err := range patroni.Watch(ctx, store, path) {
		if err != nil {
			return err
		}
		if c.Leader == leader {
			continue
		}
		leader = c.Leader
		if _, err := fmt.Fprintf(out, "%s is led by %q\n", c.Path, leader); err != nil {
			return err
		}
	}
	return nil
}
