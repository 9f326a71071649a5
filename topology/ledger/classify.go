package ledger

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// outcome is what a client knows about one of its transactions.
type outcome uint8

const (
	acknowledged outcome = iota // the server said that it committed
	failed                      // it surely did not commit
	unknown                     // it was sent, and no answer settles it
)

// phase is how far a transaction had come when it ended.
type phase uint8

const (
	connecting phase = iota // no connection yet: nothing of it was sent
	working                 // in an explicit transaction, COMMIT not sent: it cannot have committed
	committing              // what commits it was, or may have been, sent
)

// Kinds of failure that have no SQLSTATE, or share theirs with others, as they
// appear in Report.BySQLState.
const (
	// LoginFailing is PgBouncer's answer to everybody who waits for a server
	// while its last login to the server failed. Its SQLSTATE is that of every
	// other message of PgBouncer.
	LoginFailing = "server login has been failing"
	// WaitTimeout is PgBouncer's answer to a client that waited longer for a
	// server than query_wait_timeout allows.
	WaitTimeout = "query_wait_timeout"
	// CannotConnect means that no connection could be made.
	CannotConnect = "cannot connect"
	// ConnectionLost means that an open connection broke.
	ConnectionLost = "connection lost"
	// TimedOut means that Load.Timeout passed, or that Stop could wait no longer.
	TimedOut = "timeout"
	// RolledBack means that the server answered ROLLBACK to a COMMIT.
	RolledBack = "rolled back"
	// NotReplicated means that the server acknowledged, with the warning that
	// the wait for a synchronous standby was cancelled. It counts as unknown.
	NotReplicated = "not replicated"
)

// errNotReplicated is a commit that is on the primary alone.
var errNotReplicated = errors.New("committed on the primary alone: the wait for a synchronous standby was cancelled")

// errRolledBack is a COMMIT that the server answered with ROLLBACK.
var errRolledBack = errors.New("the server rolled the transaction back")

// classify decides what is known about a transaction that ended in ph with
// err, and how to count it. It errs on the side of unknown, which costs
// nothing: an unknown one is resolved by reading. A wrong "failed" would be
// reported as surplus, and a wrong "acknowledged" as lost.
func classify(ph phase, err error) (outcome, string) {
	if err == nil {
		return acknowledged, ""
	}
	kind := kindOf(ph, err)
	if ph != committing || pgconn.SafeToRetry(err) || errors.Is(err, errRolledBack) {
		return failed, kind
	}
	if kind == LoginFailing || kind == WaitTimeout {
		// Both answer a client that still waits for a server: nothing was forwarded.
		return failed, kind
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && rolledBackBy(e) {
		return failed, kind
	}
	return unknown, kind
}

// rolledBackBy tells whether this answer proves that the transaction is gone.
// An ERROR aborts it. FATAL does not prove that: a backend (or a pooler) may
// be told to end after the commit and before the answer. Nor do the classes
// that speak about the connection, the operator or the system instead of the
// statement, nor 40003, which says so itself.
func rolledBackBy(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	if severity != "ERROR" || len(e.Code) != 5 || e.Code == "40003" {
		return false
	}
	switch e.Code[:2] {
	case "08", "57", "58", "F0", "XX":
		return false
	}
	return true
}

// kindOf names a failure: a SQLSTATE where there is one, else a word.
func kindOf(ph phase, err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case strings.HasPrefix(e.Message, LoginFailing):
			return LoginFailing
		case strings.HasPrefix(e.Message, WaitTimeout):
			return WaitTimeout
		case e.Code != "":
			return e.Code
		}
	}
	switch {
	case errors.Is(err, errRolledBack):
		return RolledBack
	case errors.Is(err, errNotReplicated):
		return NotReplicated
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return TimedOut
	case ph == connecting:
		return CannotConnect
	}
	return ConnectionLost
}

// unreplicated tells whether a notice takes back half of the acknowledgement
// that follows it: the server stopped waiting for its synchronous standby
// because it was told to, so the commit is local only and a failover may lose
// it. The routine is the only part of that warning that is neither translated
// nor shared with others (its code is the general 01000).
func unreplicated(n *pgconn.Notice) bool { return n.Routine == "SyncRepWaitForLSN" }
