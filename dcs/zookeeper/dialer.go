package zookeeper

import (
	"net"
	"time"

	"github.com/go-zookeeper/zk"
)

// Dialer returns a dialer for zk.WithDialer that gives up a server that takes a connection and says nothing, after one and
// a half session timeouts. (Without it the client waits for seven, also for a server that lost the request because it was
// just starting.) Sooner would be too soon: where requests arrive and answers do not, each new attempt prolongs the session,
// and what belongs to it would never go. dial makes the connections; nil: net.DialTimeout.
func Dialer(session time.Duration, dial zk.Dialer) zk.Dialer {
	if dial == nil {
		dial = net.DialTimeout
	}
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		conn, err := dial(network, address, timeout)
		if err != nil {
			return nil, err
		}
		return impatient{conn, session * 3 / 2}, nil
	}
}

// impatient is a connection that no reading of can wait longer than that.
type impatient struct {
	net.Conn
	most time.Duration
}

func (c impatient) SetReadDeadline(t time.Time) error {
	if most := time.Now().Add(c.most); t.IsZero() || t.After(most) {
		t = most
	}
	return c.Conn.SetReadDeadline(t)
}
