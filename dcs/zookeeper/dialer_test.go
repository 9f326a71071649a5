package zookeeper_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
)

// A server that says nothing is left, whatever the client grants it.
func TestDialerGivesUpAMuteServer(t *testing.T) {
	for name, granted := range map[string]time.Time{"for an hour": time.Now().Add(time.Hour), "for ever": {}} {
		here, there := net.Pipe()
		conn, err := zookeeper.Dialer(10*time.Millisecond, func(string, string, time.Duration) (net.Conn, error) { return here, nil })("tcp", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(granted); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("granted %s: %v, want the end of the limit", name, err)
		}
		if err := errors.Join(conn.Close(), there.Close()); err != nil {
			t.Error(err)
		}
	}
}
