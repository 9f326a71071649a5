package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/dcsserver"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// ZooKeeper runs n ZooKeeper servers and waits until they serve. Sessions last a second or longer. config changes each
// one's settings; nil: nothing to change.
func ZooKeeper(t testing.TB, n int, config func(map[string]string)) *Servers {
	t.Helper()
	java := program(t, "java")
	if _, err := os.Stat(dcsserver.ZooKeeperJar); err != nil {
		missing(t, fmt.Sprintf("no ZooKeeper; scripts/setup --stores installs it (%v)", err))
	}
	s := run(t, n, func(members []dcsserver.Member, i int) (proc.Command, error) {
		return dcsserver.ZooKeeper{Java: java, ClassPath: dcsserver.ZooKeeperJar, Members: members, Config: config}.Command(i)
	})
	mode := func(ctx context.Context, i int) (string, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addrs[i].String())
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		if deadline, ok := ctx.Deadline(); ok {
			_ = conn.SetDeadline(deadline)
		}
		if _, err := io.WriteString(conn, "srvr"); err != nil {
			return "", err
		}
		b, err := io.ReadAll(conn)
		if err != nil {
			return "", err
		}
		_, mode, found := strings.Cut(string(b), "\nMode: ")
		if !found {
			return "", errors.New(strings.TrimSpace(string(b)))
		}
		mode, _, _ = strings.Cut(mode, "\n")
		return mode, nil
	}
	s.answers = func(ctx context.Context, i int) error {
		_, err := mode(ctx, i)
		return err
	}
	s.leader = func(ctx context.Context, i int) (bool, error) {
		m, err := mode(ctx, i)
		return m == "leader" || m == "standalone", err
	}
	s.Await(t)
	return s
}
