package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// unsent is an error of the driver that says that nothing was sent.
type unsent struct{ error }

func (unsent) SafeToRetry() bool { return true }

func TestClassify(t *testing.T) {
	pg := func(severity, code, message string) error {
		return &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message}
	}
	broken := fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	for _, c := range []struct {
		name  string
		phase phase
		err   error
		want  outcome
		kind  string
	}{
		{"acknowledged", committing, nil, acknowledged, ""},

		{"refused", connecting, errors.New("connection refused"), failed, CannotConnect},
		{"starting up", connecting, pg("FATAL", "57P03", "the database system is starting up"), failed, "57P03"},
		{"no time to connect", connecting, context.DeadlineExceeded, failed, TimedOut},

		{"broken before COMMIT", working, broken, failed, ConnectionLost},
		{"ended before COMMIT", working, pg("FATAL", "57P01", "terminating connection"), failed, "57P01"},
		{"COMMIT answered ROLLBACK", committing, errRolledBack, failed, RolledBack},

		{"not sent", committing, unsent{broken}, failed, ConnectionLost},
		{"broken after it was sent", committing, broken, unknown, ConnectionLost},
		{"no answer in time", committing, context.DeadlineExceeded, unknown, TimedOut},
		{"cut off by Stop", committing, context.Canceled, unknown, TimedOut},

		{"acknowledged, but local only", committing, errNotReplicated, unknown, NotReplicated},

		{"read-only", committing, pg("ERROR", "25006", "cannot execute INSERT in a read-only transaction"), failed, "25006"},
		{"serialization", committing, pg("ERROR", "40001", "could not serialize access"), failed, "40001"},
		{"says itself that it does not know", committing, pg("ERROR", "40003", "statement completion unknown"), unknown, "40003"},
		{"cancelled, perhaps after the commit", committing, pg("ERROR", "57014", "canceling statement"), unknown, "57014"},
		{"ended by the operator, perhaps after the commit", committing, pg("FATAL", "57P01", "terminating connection"), unknown, "57P01"},
		{"crash elsewhere", committing, pg("FATAL", "57P02", "terminating connection because of crash"), unknown, "57P02"},
		{"FATAL with a class that an ERROR may have", committing, pg("FATAL", "53100", "disk full"), unknown, "53100"},
		{"the server's language does not matter", committing, &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "25006"}, failed, "25006"},
		{"no code", committing, pg("ERROR", "", "?"), unknown, ConnectionLost},

		{"PgBouncer: login failing", committing, pg("FATAL", "08P01", "server login has been failing, cached error: connect failed (server_login_retry)"), failed, LoginFailing},
		{"PgBouncer: login failing, older text", committing, pg("FATAL", "08P01", "server login has been failing, try again later (server_login_retry)"), failed, LoginFailing},
		{"PgBouncer: waited too long", committing, pg("FATAL", "08P01", "query_wait_timeout"), failed, WaitTimeout},
		{"PgBouncer: server gone", committing, pg("FATAL", "08P01", "server conn crashed?"), unknown, "08P01"},
		{"PgBouncer: client killed", committing, pg("FATAL", "08P01", "admin forced disconnect"), unknown, "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, kind := classify(c.phase, c.err); got != c.want || kind != c.kind {
				t.Errorf("classify = %v %q, want %v %q", got, kind, c.want, c.kind)
			}
		})
	}
}
