package pooler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Console is one connection to PgBouncer's admin console. It speaks the simple query protocol only, since the
// console knows no other. Use it for one command at a time, and for nothing after a blocking one (PAUSE, WAIT_CLOSE)
// that did not return: any completion answers all waiting consoles.
//
// When a context ends, the socket is closed and no cancel request is sent: PgBouncer takes a cancel request on the
// console as RESUME. A command that was sent stays in effect.
type Console struct {
	conn    net.Conn
	front   *pgproto3.Frontend
	version string
	broken  error // why nothing more can be sent
}

// Open connects. The connection is taken over from pgconn, which would send a cancel request when a context ends.
func Open(ctx context.Context, connect Connect) (*Console, error) {
	pg, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the admin console: %w", err)
	}
	hc, err := pg.Hijack()
	if err != nil {
		_ = pg.Close(ctx)
		return nil, fmt.Errorf("open the admin console: %w", err)
	}
	version, isBouncer := strings.CutSuffix(hc.ParameterStatuses["server_version"], "/bouncer")
	if !isBouncer {
		_ = hc.Conn.Close()
		return nil, errors.New("open the admin console: this is not the console of a PgBouncer; the database must be \"pgbouncer\"")
	}
	return &Console{conn: hc.Conn, front: hc.Frontend, version: version}, nil
}

// Version is the version of PgBouncer, "1.24.1".
func (c *Console) Version() string { return c.version }

// Close ends the connection. What was sent stays in effect: a PAUSE is not undone.
func (c *Console) Close() error {
	if c.broken == nil {
		c.broken = net.ErrClosed
		// A farewell, or PgBouncer logs an unexpected end.
		_ = c.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		c.front.Send(&pgproto3.Terminate{})
		_ = c.front.Flush()
	}
	return c.conn.Close()
}

// Exec runs a command with its arguments, for example Exec(ctx, "PAUSE", "app") or Exec(ctx, "SHUTDOWN",
// "WAIT_FOR_CLIENTS"), and waits for the answer. Arguments are quoted where needed. An ERROR is a *[CommandError]
// and leaves the connection usable; after any other error it is closed.
func (c *Console) Exec(ctx context.Context, command string, args ...string) error {
	_, err := c.query(ctx, command, args)
	return err
}

// Set changes a setting until the next RELOAD or restart.
func (c *Console) Set(ctx context.Context, key, value string) error {
	if !plainWord.MatchString(key) || strings.ContainsAny(value, "\x00") || len(value) > 255 {
		return fmt.Errorf("%w: SET %s: not a setting's name and value", ErrInvalid, key)
	}
	_, err := c.send(ctx, "SET "+key+" = '"+strings.ReplaceAll(value, "'", "''")+"'", "SET "+key)
	return err
}

// Rows is the answer to a SHOW command. NULL is a nil value.
type Rows struct {
	Columns []string
	Values  [][][]byte
}

// ShowRows runs SHOW what. Read the values by the name of their column: positions change between versions.
func (c *Console) ShowRows(ctx context.Context, what string) (Rows, error) {
	return c.query(ctx, "SHOW", []string{what})
}

var plainWord = regexp.MustCompile(`^[0-9A-Za-z_]+$`)

// maxArgument is the longest argument that the console takes; a database with a longer name has no console name.
const maxArgument = 63

func (c *Console) query(ctx context.Context, command string, args []string) (Rows, error) {
	if !plainWord.MatchString(command) {
		return Rows{}, fmt.Errorf("%w: command %q", ErrInvalid, command)
	}
	words := []string{command}
	for _, a := range args {
		if a == "" || len(a) > maxArgument || strings.ContainsRune(a, 0) {
			return Rows{}, fmt.Errorf("%w: %s: the argument must have 1 to %d bytes, has %d", ErrInvalid, command, maxArgument, len(a))
		}
		// Unquoted words keep their case too, so only the character set decides.
		if !plainWord.MatchString(a) {
			a = `"` + strings.ReplaceAll(a, `"`, `""`) + `"`
		}
		words = append(words, a)
	}
	text := strings.Join(words, " ")
	return c.send(ctx, text, text)
}

// send runs one command; shown is how it appears in errors.
func (c *Console) send(ctx context.Context, text, shown string) (Rows, error) {
	if c.broken != nil {
		return Rows{}, fmt.Errorf("%s: the console connection is not usable any more: %w", shown, c.broken)
	}
	rows, err := c.roundTrip(ctx, text, shown)
	var refused *CommandError
	if err != nil && !errors.As(err, &refused) {
		c.broken = err
		_ = c.conn.Close()
	}
	return rows, err
}

func (c *Console) roundTrip(ctx context.Context, text, shown string) (rows Rows, err error) {
	if err := ctx.Err(); err != nil {
		return rows, fmt.Errorf("%s: not sent: %w", shown, ended(ctx))
	}
	// A deadline in the past ends reads and writes at once; the caller closes the socket.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		switch {
		case stop():
		case err == nil: // answered at the last moment; the deadline is or will be in the past
			c.broken = ended(ctx)
			_ = c.conn.Close()
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("%s: sent, no answer yet: %w", shown, ended(ctx))
		}
	}()
	c.front.SendQuery(&pgproto3.Query{String: text})
	if err := c.front.Flush(); err != nil {
		return rows, fmt.Errorf("%s: %w", shown, err)
	}
	var refused *CommandError
	for {
		msg, err := c.front.Receive()
		if err != nil {
			return rows, fmt.Errorf("%s: %w", shown, err)
		}
		switch m := msg.(type) {
		case *pgproto3.RowDescription:
			for _, f := range m.Fields {
				rows.Columns = append(rows.Columns, string(f.Name))
			}
		case *pgproto3.DataRow:
			if len(m.Values) != len(rows.Columns) {
				return rows, fmt.Errorf("%s: a row of %d values for %d columns", shown, len(m.Values), len(rows.Columns))
			}
			rows.Values = append(rows.Values, cloneRow(m.Values))
		case *pgproto3.ErrorResponse:
			refused = &CommandError{Command: shown, Code: m.Code, Message: m.Message}
			if m.Severity == "FATAL" {
				return rows, fmt.Errorf("%s: PgBouncer ended the connection: %s", shown, m.Message)
			}
		case *pgproto3.ReadyForQuery:
			if refused != nil {
				return rows, refused
			}
			return rows, nil
		}
	}
}

// ended is the error of an ended context, with its cause where that says more.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func cloneRow(values [][]byte) [][]byte {
	row := make([][]byte, len(values))
	for i, v := range values {
		if v != nil {
			row[i] = append([]byte{}, v...)
		}
	}
	return row
}
