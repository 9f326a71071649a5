package local

import (
	"bufio"
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
)

// hookLimit bounds one call of a node's hook; Patroni itself would wait for ever.
const hookLimit = 3 * time.Second

// startHook serves the nodes' before-stop hooks from this process: a hook is then a script of a few milliseconds.
func (s *Stack) startHook(ctx context.Context) error {
	l, addr, err := listen()
	if err != nil {
		return fmt.Errorf("local: before-stop hook: %w", err)
	}
	s.hookAddr, s.hookWord = addr, secret()
	context.AfterFunc(ctx, func() { _ = l.Close() }) // nothing is lost with it
	s.roles.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.roles.wg.Go(func() { s.answerHook(ctx, conn) })
		}
	})
	return nil
}

func (s *Stack) answerHook(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }() // the script has its answer or gives up
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(conn).ReadString('\n')
	word, member, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || subtle.ConstantTimeCompare([]byte(word), []byte(s.hookWord)) != 1 {
		return
	}
	if err := s.beforeStop(member).Run(ctx); err != nil {
		s.log.WarnContext(ctx, "before-stop hook", "member", member, "error", err)
	}
	_, _ = fmt.Fprintln(conn, "done")
}

func (s *Stack) beforeStop(member string) *topology.BeforeStop {
	return &topology.BeforeStop{Path: s.spec.Path, Store: s.Store(), Member: member}
}

// hookScript writes what a node's Patroni calls before each stop. It must never keep Patroni waiting.
func (s *Stack) hookScript(node, dir string) (string, error) {
	path := filepath.Join(dir, "before-stop.sh")
	text := fmt.Sprintf(`#!/bin/bash
# Has the poolers hold before PostgreSQL stops. Always succeeds, within %[1]d s: the stop follows in any case.
{ exec 3<>/dev/tcp/%[2]s/%[3]d; } 2>/dev/null || exit 0
echo '%[4]s %[5]s' >&3
read -r -t %[1]d _ <&3
exit 0
`, int(hookLimit.Seconds()), s.hookAddr.Addr(), s.hookAddr.Port(), string(s.hookWord), node)
	return path, s.folder.write(path, []byte(text), 0o700)
}
