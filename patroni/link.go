package patroni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Connect opens a connection to one database server. TLS, credentials and their rotation are the caller's.
type Connect func(ctx context.Context, addr netip.AddrPort) (*pgconn.PgConn, error)

// Connector makes a Connect from a configuration whose host and port are replaced by the server's.
// config comes from [pgconn.ParseConfig] and is not changed. Its TLS settings stay, with the name that they expect in
// the server's certificate and, for sslmode prefer and allow, with the second try; further hosts are ignored.
func Connector(config *pgconn.Config) Connect {
	return func(ctx context.Context, addr netip.AddrPort) (*pgconn.PgConn, error) {
		c := config.Copy()
		host, port := c.Host, c.Port
		c.Host, c.Port, c.Fallbacks = addr.Addr().String(), addr.Port(), nil
		for _, f := range config.Fallbacks {
			if f.Host == host && f.Port == port {
				again := *f
				again.Host, again.Port = c.Host, c.Port
				c.Fallbacks = append(c.Fallbacks, &again)
			}
		}
		return pgconn.ConnectConfig(ctx, c)
	}
}

// link is a connection that asks with simple queries under a deadline. A pgconn that misses a deadline goes on in a
// goroutine of its own, up to 15 s, to cancel the query; a probe of a server that hangs must be able to just leave.
type link struct {
	conn net.Conn
	fe   *pgproto3.Frontend

	release func() // ends the watch over ctx, and waits for it
}

func dial(ctx context.Context, connect Connect, addr netip.AddrPort) (*link, error) {
	pc, err := connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, fmt.Errorf("patroni: connection to %s is not usable: %w", addr, err)
	}
	return &link{conn: h.Conn, fe: h.Frontend}, nil
}

// bind closes the connection when ctx ends, which ends whatever waits for it.
func (l *link) bind(ctx context.Context) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = l.conn.Close()
		close(closed)
	})
	l.release = func() {
		if !stop() {
			<-closed
		}
	}
}

// query returns the last row of one simple query as texts.
func (l *link) query(sql string, bound time.Duration) ([]string, error) {
	if err := l.conn.SetDeadline(time.Now().Add(bound)); err != nil {
		return nil, err
	}
	l.fe.Send(&pgproto3.Query{String: sql})
	if err := l.fe.Flush(); err != nil {
		return nil, err
	}
	var row []string
	var failed error
	for {
		msg, err := l.fe.Receive()
		if err != nil {
			return nil, errors.Join(failed, err)
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			row = row[:0]
			for _, v := range m.Values {
				row = append(row, string(v))
			}
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return row, failed
		}
	}
}

// wait reads until d is over (nil) or the server is lost. What a server says unasked is not an answer.
func (l *link) wait(d time.Duration) error {
	if err := l.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	for {
		msg, err := l.fe.Receive() // a message that came in part goes on at the next call
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if m, ok := msg.(*pgproto3.ErrorResponse); ok {
			return pgconn.ErrorResponseToPgError(m) // it says good-bye
		}
	}
}

func (l *link) close() {
	l.release()
	_ = l.conn.Close()
}
