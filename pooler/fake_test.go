package pooler_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// fakeConsole answers like the admin console of any version. A real PgBouncer cannot be had in every version, and
// cannot be told to have a server in login.
type fakeConsole struct {
	version string
	// answer returns the rows of a command, the first being the columns, or an error text. Nil rows: no answer.
	answer func(command string) (rows [][]string, refused string)

	mu       sync.Mutex
	commands []string
	opened   int // connections of any kind, cancel requests too
	listener net.Listener
	served   sync.WaitGroup
}

func (f *fakeConsole) start(tb testing.TB) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	f.listener = l
	f.served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.opened++
			f.mu.Unlock()
			f.served.Go(func() { f.serve(conn) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		f.served.Wait()
	})
}

func (f *fakeConsole) connect(ctx context.Context) (*pgconn.PgConn, error) {
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=admin password=hunter2 dbname=x sslmode=disable target_session_attrs=read-write options=-cx=y", f.listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return nil, err
	}
	return pooler.ConnectWith(c)(ctx)
}

func (f *fakeConsole) serve(conn net.Conn) {
	defer conn.Close()
	back := pgproto3.NewBackend(conn, conn)
	first, err := back.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if startup, ok := first.(*pgproto3.StartupMessage); !ok || startup.Parameters["database"] != "pgbouncer" || startup.Parameters["options"] != "" {
		return
	}
	back.Send(&pgproto3.AuthenticationOk{})
	back.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: f.version + "/bouncer"})
	back.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for back.Flush() == nil {
		msg, err := back.Receive()
		if err != nil {
			return
		}
		query, ok := msg.(*pgproto3.Query)
		if !ok {
			return
		}
		f.mu.Lock()
		f.commands = append(f.commands, query.String)
		f.mu.Unlock()
		rows, refused := f.answer(query.String)
		switch {
		case refused != "":
			back.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "08P01", Message: refused})
		case rows == nil:
			_, _ = back.Receive() // until the other side closes
			return
		default:
			sendRows(back, rows)
		}
		back.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
}

func sendRows(back *pgproto3.Backend, rows [][]string) {
	if len(rows) > 0 {
		var d pgproto3.RowDescription
		for _, name := range rows[0] {
			d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25})
		}
		back.Send(&d)
		for _, row := range rows[1:] {
			values := make([][]byte, len(row))
			for i, v := range row {
				if v != "NULL" {
					values[i] = []byte(v)
				}
			}
			back.Send(&pgproto3.DataRow{Values: values})
		}
	}
	back.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
}

// sent lists the commands that begin with a prefix.
func (f *fakeConsole) sent(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.commands), func(c string) bool { return !strings.HasPrefix(c, prefix) })
}

// table makes rows from a text: one line each, values separated by blanks.
func table(text string) [][]string {
	rows := [][]string{}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 {
			rows = append(rows, fields)
		}
	}
	return rows
}
