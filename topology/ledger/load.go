package ledger

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The zero value of each field of [Load] stands for these.
const (
	defaultWriters = 20
	defaultEvery   = 10 * time.Millisecond
	defaultTable   = "pgconvoy_ledger"
	defaultTimeout = 60 * time.Second
)

// most bounds the number of clients of either kind.
const most = 10_000

// Load says what the clients do. The zero value is 20 writers with one
// transaction per 10 ms each, 2,000 a second in all, and no readers.
type Load struct {
	// Writers is the number of clients that write, each with a connection of
	// its own. Zero means 20.
	Writers int

	// Every is the time between two transactions of one writer. The writers'
	// schedules are shifted against each other so that they spread evenly.
	// Zero means 10 ms.
	Every time.Duration

	// Readers is the number of clients that read, each with a connection of its
	// own: at each tick one asks for the newest row of one of the writers. They
	// need an index, Table with "_reads" appended, which is created where it
	// does not exist. Zero means none.
	Readers int

	// ReadEvery is Every for the readers. Zero means the same as Every.
	ReadEvery time.Duration

	// Read is the DSN that the readers use, that of a service of replicas for
	// instance. Its transactions should not be read-only by default: what such
	// a one is answered counts as a standby's answer, of which less is
	// demanded. Empty means the writers' DSN.
	Read string `json:"-"`

	// Table holds the rows, one per transaction: a name, or schema.name. It is
	// created where it does not exist and never dropped: it is the evidence.
	// Each run has its own number in it, so runs may share a table, also at the
	// same time. Empty means pgconvoy_ledger.
	Table string

	// Explicit sends BEGIN, INSERT and COMMIT as three messages, instead of one
	// INSERT in a transaction of its own.
	Explicit bool

	// Timeout bounds one transaction, with the connection it may need first.
	// One that was sent and reaches it has an unknown outcome. Zero means 60 s.
	Timeout time.Duration

	// Direct are DSNs of the database nodes themselves, past every pooler and
	// balancer. A small write is tried on each of them all the time, to measure
	// how long no server at all accepted one (Report.ServerGap): the part of a
	// stall that no router can avoid. Their user writes to Table with "_probe"
	// appended, in the same database. Empty means that this is not measured.
	Direct []string `json:"-"`
}

// String tells the load without the DSNs, which hold passwords.
func (l Load) String() string {
	return fmt.Sprintf("{Writers:%d Every:%v Readers:%d ReadEvery:%v Table:%q Explicit:%t Timeout:%v Direct:%d nodes}",
		l.Writers, l.Every, l.Readers, l.ReadEvery, l.Table, l.Explicit, l.Timeout, len(l.Direct))
}

// GoString is String: the %#v of a Load shows no password either.
func (l Load) GoString() string { return "ledger.Load" + l.String() }

func (l Load) withDefaults() Load {
	if l.Writers == 0 {
		l.Writers = defaultWriters
	}
	if l.Every == 0 {
		l.Every = defaultEvery
	}
	if l.ReadEvery == 0 {
		l.ReadEvery = l.Every
	}
	if l.Table == "" {
		l.Table = defaultTable
	}
	if l.Timeout == 0 {
		l.Timeout = defaultTimeout
	}
	return l
}

// validate expects the defaults to be filled in.
func (l Load) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ledger: Load."+format, args...)) }
	if l.Writers < 0 || l.Writers > most {
		bad("Writers is %d: it must be from 1 to %d", l.Writers, most)
	}
	if l.Every < 0 {
		bad("Every is %v: it must be positive", l.Every)
	}
	if l.Readers < 0 || l.Readers > most {
		bad("Readers is %d: it must be from 0 to %d", l.Readers, most)
	}
	if l.ReadEvery < 0 && l.ReadEvery != l.Every {
		bad("ReadEvery is %v: it must be positive", l.ReadEvery)
	}
	if l.Timeout < 0 {
		bad("Timeout is %v: it must be positive", l.Timeout)
	}
	parts := strings.Split(l.Table, ".")
	if len(parts) > 2 {
		bad("Table is %q: it must be a name or schema.name", l.Table)
	}
	for _, p := range parts {
		// PostgreSQL would cut a longer name silently, and the suffix with it.
		if p == "" || strings.ContainsRune(p, 0) || len(p)+len(probeSuffix) > 63 {
			bad("Table is %q: each part must have 1 to %d bytes", l.Table, 63-len(probeSuffix))
			break
		}
	}
	return errors.Join(errs...)
}

// quoted is the table's name (with a suffix) as SQL.
func quoted(table, suffix string) string {
	parts := strings.Split(table, ".")
	parts[len(parts)-1] += suffix
	return pgx.Identifier(parts).Sanitize()
}
