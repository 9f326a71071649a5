package pooler

import (
	"errors"
	"fmt"
)

// Errors that callers branch on; test with [errors.Is].
var (
	// ErrInvalid: an argument or a field that PgBouncer could not be given. Nothing was changed.
	ErrInvalid = errors.New("invalid argument")
	// ErrReleased: somebody resumed the pooler (a Route, an operator, a restart) while Hold waited for it to drain.
	ErrReleased = errors.New("released while holding")
	// ErrNotApplied: PgBouncer accepted RELOAD but does not show the new target. Before 1.25 it answers OK even if
	// its file does not parse; its log has the line. Nothing was resumed.
	ErrNotApplied = errors.New("the running pooler does not show the new target")
	// ErrLeftover: server connections to an old address are still there and could not be ended.
	ErrLeftover = errors.New("server connections to an old address remain")
	// ErrShuttingDown: a SHUTDOWN WAIT_FOR_CLIENTS or WAIT_FOR_SERVERS runs, and PgBouncer refuses a global RESUME
	// until it is gone.
	ErrShuttingDown = errors.New("the pooler is shutting down")
)

// CommandError is an ERROR that PgBouncer answered to a console command. Test with [errors.As].
type CommandError struct {
	Command string // as it was sent, "PAUSE app"
	Code    string // SQLSTATE; "08P01" for nearly everything
	Message string // PgBouncer's text
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.Command, e.Message, e.Code)
}

// Error is what the methods of [Local] return: which pooler, doing what, why, and what a person can do about it.
type Error struct {
	Pooler string // path of the configuration file
	Op     string // "state", "hold" or "route"
	Hint   string // what to do; may be empty
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("pooler %s: %s: %v", e.Pooler, e.Op, e.Err)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
