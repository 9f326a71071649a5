//go:build linux

package patroni_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// primaryServer speaks enough of PostgreSQL's protocol to be probed. Each connection is offered on conns.
type primaryServer struct {
	addr  netip.AddrPort
	conns chan net.Conn
}

func newPrimaryServer(b *testing.B) *primaryServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	s := &primaryServer{addr: ln.Addr().(*net.TCPAddr).AddrPort(), conns: make(chan net.Conn, 1<<16)}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *primaryServer) serve(conn net.Conn) {
	be := pgproto3.NewBackend(conn, conn)
	if _, err := be.ReceiveStartupMessage(); err != nil {
		_ = conn.Close()
		return
	}
	be.Send(&pgproto3.AuthenticationOk{})
	be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for be.Flush() == nil {
		msg, err := be.Receive()
		if err != nil {
			_ = conn.Close()
			return
		}
		if _, ok := msg.(*pgproto3.Query); ok {
			be.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("f"), []byte(systemID), []byte("1"), []byte("50331648")}})
			be.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			select {
			case s.conns <- conn:
			default:
			}
		}
	}
}

// BenchmarkLoss is the time from the end of a connection to the Leadership that tells of it. The floor is a read of
// the bare socket, woken by the same end.
func BenchmarkLoss(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		var total time.Duration
		for b.Loop() {
			near, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			far, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			woken := make(chan time.Time)
			go func() {
				_, _ = near.Read(make([]byte, 1)) // it ends with the connection
				woken <- time.Now()
			}()
			time.Sleep(time.Millisecond) // the reader waits, as a probe does
			begin := time.Now()
			_ = far.Close()
			total += (<-woken).Sub(begin)
			_ = near.Close()
		}
		report(b, total)
	})
	b.Run("leadership", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		server := newPrimaryServer(b)
		store := memory.New()
		for key, value := range map[string]string{
			"leader": "n1", "members/n1": fmt.Sprintf(`{"conn_url":"postgres://%s/postgres"}`, server.addr),
		} {
			if _, err := store.Put(ctx, path+"/"+key, []byte(value), dcs.Version{}); err != nil {
				b.Fatal(err)
			}
		}
		sql := &patroni.SQL{Connect: (&postgres{TB: b}).connector()}
		levels, wait := dcs.Latest((&patroni.Source{Store: store, Path: path, Prober: sql}).Watch(ctx))
		until := func(is func(patroni.Leadership) bool) patroni.Leadership {
			for l := range levels {
				if is(l) {
					return l
				}
			}
			b.Fatal("the watch has ended")
			return patroni.Leadership{}
		}
		proven := func(l patroni.Leadership) bool { return l.Phase == patroni.Writable }
		var lost, back time.Duration
		before := until(proven)
		for b.Loop() {
			var all []net.Conn
			for len(server.conns) > 0 {
				all = append(all, <-server.conns)
			}
			time.Sleep(time.Millisecond) // the probe rests
			begin := time.Now()
			for _, c := range all {
				_ = c.Close()
			}
			// A new proof tells of the loss as well, should its own level have been replaced already.
			next := until(func(l patroni.Leadership) bool { return !proven(l) || !l.At.Equal(before.At) })
			lost += time.Since(begin)
			if !proven(next) {
				next = until(proven)
			}
			back += time.Since(begin)
			before = next
		}
		report(b, lost)
		b.ReportMetric(float64(back.Microseconds())/float64(b.N), "µs-to-a-new-proof/op")
		cancel()
		_ = wait() // the end of ctx
	})
}

func report(b *testing.B, total time.Duration) {
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs-to-the-loss/op")
}

// BenchmarkParse is one element of a watch over three members.
func BenchmarkParse(b *testing.B) {
	member := `{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"replica","version":"4.1.5","replication_state":"streaming","xlog_location":67419584,"timeline":2}`
	s := dcs.NewSnapshot(time.Now(), []dcs.Entry{
		{Key: path + "/leader", Value: []byte("n1")},
		{Key: path + "/initialize", Value: []byte(systemID)},
		{Key: path + "/config", Value: []byte(`{"ttl":30,"loop_wait":10,"retry_timeout":10,"synchronous_mode":true}`)},
		{Key: path + "/members/n1", Value: []byte(member)},
		{Key: path + "/members/n2", Value: []byte(member)},
		{Key: path + "/members/n3", Value: []byte(member)},
		{Key: path + "/status", Value: []byte(`{"optime":67419584}`)},
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := patroni.Parse(path, s); err != nil {
			b.Fatal(err)
		}
	}
}
