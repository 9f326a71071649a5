package zookeeper_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
)

// A store over a connection with TLS and credentials, below a root, and a watch of a Patroni cluster.
func Example() {
	const session = 10 * time.Second
	withTLS := func(network, addr string, timeout time.Duration) (net.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, network, addr, &tls.Config{})
	}
	conn, _, err := zk.Connect([]string{"zk1:2281", "zk2:2281", "zk3:2281"}, session,
		zk.WithDialer(zookeeper.Dialer(session, withTLS)), zk.WithLogInfo(false))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.AddAuth("digest", []byte("pgconvoy:secret")); err != nil {
		log.Print(err)
		return
	}
	store := zookeeper.New(conn)
	store.TTL = session
	store.Root = "/production"
	store.ACL = append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...) // others may watch

	for s, err := range store.Watch(context.Background(), "/service/demo") {
		if err != nil {
			log.Print(err)
			return
		}
		leader, ok := s.Get("/service/demo/leader")
		fmt.Println(string(leader.Value), ok, s.Known(), s.Stale)
	}
}
