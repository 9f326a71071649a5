// Controller keeps a file that names the primary of a Patroni cluster, for programs that cannot ask. The file changes
// as soon as another primary is proven, never before, and never back to an older one. A controller of your own that
// labels, announces or configures something else has the same form.
//
//	controller -etcd 10.0.0.1:2379 -path /service/demo -file /run/primary.json
//
// The databases are asked as the PG* environment says: a role that may log in is enough. In the store it only reads.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/patroni"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `addresses` of the store")
	path := flag.String("path", "/service/demo", "Patroni's namespace and scope")
	file := flag.String("file", "primary.json", "the `file` to keep")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, strings.Split(*endpoints, ","), *path, "", *file)
	stop()
	if !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// run keeps the file until ctx ends. The DSN says how to log in to any of the databases, but not where they are.
func run(ctx context.Context, endpoints []string, path, dsn, file string) error {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	c := &Controller{
		Leaders: &patroni.Source{
			Store: etcd.New(client), Path: path,
			Prober: &patroni.SQL{Connect: patroni.Connector(config)},
		},
		File: file,
	}
	return errors.Join(c.Run(ctx), client.Close())
}
