package pooler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
)

// Route points the pooler at a target and lets it go: on nil, every database that matters has the target in the
// running pooler, no server connection to another address is left, and nothing is held. The caller has proven the
// target. It is idempotent, and works while a Hold waits for a drain that never comes. (That Hold returns
// [ErrReleased], or nil if it saw that disconnecting the clients below drained the pooler.)
//
// In this order: the file is replaced by one rename, RELOAD, the running pooler is asked whether it has the target,
// transactions on servers of other addresses are ended, RESUME, and it is asked again. Idle servers of old addresses
// close by themselves. A transaction that is still open on an old server is on a machine that is the primary no
// more: its client, and only that one, is disconnected ("admin forced disconnect"), whether the pooler was held or
// not, as soon as the target is live. Only where Route finds the pooler neither held nor on another target is nobody
// disconnected: it waits, bounded by Timeout.
//
// PgBouncer before 1.24 cannot disconnect one client. There Route waits for such a transaction, bounded by Timeout,
// then resumes and returns [ErrLeftover].
//
// A target without hosts refuses until the next Route. The address alone does not do that: PgBouncer keeps a client
// whose server does not answer for its query_wait_timeout. So waiting clients are disconnected, and query_wait_timeout
// is SET to 0.05 s, which the next RELOAD undoes. With Databases, where that setting belongs to others too, all
// clients of these databases are disconnected (KILL db) and new ones are not admitted (DISABLE db), until a Route to
// a host ENABLEs the database again. A restart of PgBouncer forgets both; a Route that refuses again restores them.
//
// After an error before the verification nothing was resumed. [ErrShuttingDown]: PgBouncer is going away and refuses
// a global RESUME.
func (l *Local) Route(ctx context.Context, to Target) error {
	to, err := to.normal()
	if err != nil {
		return (&session{l: l, op: "route"}).fail(err, "")
	}
	s, err := l.open(ctx, "route")
	if err != nil {
		return err
	}
	defer s.close()
	return s.fail(s.route(ctx, to), "")
}

func (s *session) route(ctx context.Context, to Target) (err error) {
	r := route{session: s, to: to}
	defer func() {
		if r.settle == nil {
			return
		}
		if late := r.settle(); late != nil && err == nil {
			err = r.fail(fmt.Errorf("routed, but a power cut may bring back the old file: %w", late), "look at the disk")
		}
	}()
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.admit(ctx); err != nil {
		return err
	}
	if err := r.install(ctx); err != nil {
		return err
	}
	leftover := r.endOld(ctx) // reported below: one transaction that cannot be ended must not keep all others held
	if leftover != nil && !errors.Is(leftover, ErrLeftover) {
		return leftover
	}
	if to.Refuses() {
		if err := r.refuseLater(ctx); err != nil {
			return err
		}
	}
	if err := r.resume(ctx); err != nil {
		return err
	}
	if leftover != nil && !r.able {
		return leftover
	}
	if to.Refuses() {
		if err := r.refuseNow(ctx); err != nil {
			return err
		}
	}
	return r.awaitGone(ctx)
}

// route is one call of Route.
type route struct {
	*session
	to     Target
	file   targetFile
	before live         // as it was found
	now    live         // as it was last looked at
	ending bool         // clients on old servers are to be disconnected
	able   bool         // and this PgBouncer can do so
	settle func() error // makes the new file last through a power cut; nobody needs to wait held for it
}

// look finds out where the pooler is now and renders the new file without writing it.
func (r *route) look(ctx context.Context) error {
	file, err := os.ReadFile(r.l.Config)
	if err != nil {
		return err
	}
	if _, err := Rewrite(file, r.l.Databases, r.to); err != nil {
		return err
	}
	if r.file, err = readTarget(file, r.l.Databases); err != nil {
		return err
	}
	if r.before, err = r.session.look(ctx, r.file); err != nil {
		return err
	}
	if r.before.foreign != "" && r.file.includes { // without includes the RELOAD drops it
		return r.fail(fmt.Errorf("%w: database %q is not in the [databases] section of the file itself", ErrInvalid, r.before.foreign),
			"move its line into the file, or name the databases in Local.Databases")
	}
	r.now = r.before
	r.ending = r.before.held() || !r.before.known || !r.before.target.SameHosts(r.to)
	r.able = r.ending && versionAtLeast(r.console.Version(), 1, 24)
	return nil
}

// install makes the target live: write, RELOAD, verify. What is in place already is not done again.
func (r *route) install(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("nothing was written: %w", ended(ctx))
	}
	moved := false
	settle, err := atomicfile.Update(r.l.Config, !r.l.NoSync, func(old []byte) ([]byte, error) {
		f, err := readTarget(old, r.l.Databases)
		if err != nil {
			return nil, err
		}
		moved = !f.known || !f.target.SameHosts(r.to)
		return Rewrite(old, r.l.Databases, r.to)
	})
	r.settle = settle
	if err != nil {
		return r.fail(fmt.Errorf("write the new target: %w", err), "the directory of the file must be writable")
	}
	if !moved && r.before.known && r.before.target.SameHosts(r.to) && !r.before.held() {
		return nil // a held one is reloaded: a Hold that was killed may have left a setting changed
	}
	if r.before.global == "" { // RELOAD cuts logins, as PAUSE does; see Local.LoginWait
		if err := r.awaitLogins(ctx, &r.now); err != nil {
			return err
		}
	}
	if err := r.exec(ctx, "RELOAD"); err != nil {
		return r.fail(err, "the file has the new target; PgBouncer's log says what it dislikes")
	}
	if err := r.lookDatabases(ctx, r.file, &r.now); err != nil {
		return err
	}
	if r.now.unseen {
		return nil
	}
	if r.now.reason != "" || !r.now.known || !r.now.target.SameHosts(r.to) {
		reason := r.now.reason
		if reason == "" {
			reason = "it has " + r.now.target.hosts()
		}
		return r.fail(fmt.Errorf("RELOAD: %w %s: %s", ErrNotApplied, r.to.hosts(), reason),
			"PgBouncer's log says what it dislikes in the file")
	}
	return nil
}

// endOld ends the transactions on servers of addresses that are not the target's.
func (r *route) endOld(ctx context.Context) error {
	wait := r.l.timeout()
	for begin := time.Now(); ; {
		old, err := r.oldServers(ctx, "active")
		if err != nil || len(old) == 0 {
			return err
		}
		if r.able {
			killed, err := r.killClients(ctx, linkedTo(old))
			if err != nil {
				return err
			}
			if killed > 0 {
				continue
			}
			// A login that asks auth_query has a server but is not among the clients yet. It ends by itself, or in
			// client_login_timeout: not a reason to keep all others waiting.
			wait = min(wait, 100*time.Millisecond)
		}
		if time.Since(begin) > wait {
			hint := "end these transactions, or look at SHOW SERVERS"
			if r.ending && !r.able {
				hint = "PgBouncer " + r.console.Version() + " cannot end one client; 1.24 and later can"
			}
			return r.fail(fmt.Errorf("%w: %s", ErrLeftover, describe(old)), hint)
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("the target is live, nothing was resumed: %w", err)
		}
	}
}

// oldServers lists server connections to addresses that are not the target's, in any of the states.
func (r *route) oldServers(ctx context.Context, states ...string) ([]SocketRow, error) {
	rows, err := show[SocketRow](ctx, r.session, "SERVERS")
	if err != nil {
		return nil, err
	}
	var old []SocketRow
	for _, row := range rows {
		if r.now.matters(row.Database) && !r.to.has(row.address()) && slices.Contains(states, row.State) {
			old = append(old, row)
		}
	}
	return old, nil
}

// killClients disconnects the clients that want says, by the id that only SHOW CLIENTS knows.
func (r *route) killClients(ctx context.Context, want func(client SocketRow) bool) (killed int, err error) {
	clients, err := show[SocketRow](ctx, r.session, "CLIENTS")
	if err != nil {
		return 0, err
	}
	for _, c := range clients {
		if !r.now.matters(c.Database) || !want(c) {
			continue
		}
		err := r.exec(ctx, "KILL_CLIENT", c.ID)
		if refused, ok := errors.AsType[*CommandError](err); ok && strings.Contains(refused.Message, "not found") {
			continue // it left by itself
		}
		if err != nil {
			return killed, err
		}
		killed++
	}
	return killed, nil
}

func linkedTo(servers []SocketRow) func(SocketRow) bool {
	links := map[string]bool{}
	for _, s := range servers {
		links[s.Link] = s.Link != ""
	}
	return func(client SocketRow) bool { return links[client.Ptr] }
}

// resume undoes every pause that concerns the databases that matter, and verifies it.
func (r *route) resume(ctx context.Context) error {
	for end := time.Now().Add(r.l.timeout()); ; {
		if err := r.resumeOnce(ctx); err != nil {
			return err
		}
		if err := r.lookDatabases(ctx, r.file, &r.now); err != nil {
			return err
		}
		if err := r.lookActivity(ctx, &r.now); err != nil {
			return err
		}
		if !r.now.held() {
			return nil
		}
		if time.Now().After(end) {
			return r.fail(errors.New("RESUME: somebody holds the pooler again and again"), "look for another agent or operator")
		}
	}
}

func (r *route) resumeOnce(ctx context.Context) error {
	var stopping error
	if r.now.global != "" {
		err := r.exec(ctx, "RESUME")
		refused, ok := errors.AsType[*CommandError](err)
		switch {
		case ok && strings.Contains(refused.Message, "not paused"): // somebody was faster
		case ok && strings.Contains(refused.Message, "shutting down"):
			stopping = r.fail(fmt.Errorf("%w: %w", ErrShuttingDown, err), "its waiting clients stay held until it is gone")
		case err != nil:
			return err
		}
	}
	for _, name := range r.now.paused {
		err := r.exec(ctx, "RESUME", name)
		if refused, ok := errors.AsType[*CommandError](err); ok && strings.Contains(refused.Message, "is not paused") {
			continue
		}
		if err != nil {
			return err
		}
	}
	return stopping
}

// awaitGone waits until PgBouncer has closed the idle servers of old addresses, which it does three times a second
// and never uses again. Servers that carry a cancel request or a check query may stay a little longer.
func (r *route) awaitGone(ctx context.Context) error {
	for end := time.Now().Add(r.l.timeout()); ; {
		old, err := r.oldServers(ctx, "active", "idle", "used", "new")
		if err != nil || len(old) == 0 {
			return err
		}
		if time.Now().After(end) {
			return r.fail(fmt.Errorf("%w: %s", ErrLeftover, describe(old)), "the pooler is resumed on the new target; look at SHOW SERVERS")
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("resumed on the new target; old servers remain: %w", err)
		}
	}
}

// describe names server connections for people.
func describe(servers []SocketRow) string {
	parts := make([]string, len(servers))
	for i, s := range servers {
		parts[i] = fmt.Sprintf("%s %s@%s to %s", s.State, s.User, s.Database, s.address())
	}
	return strings.Join(parts, ", ")
}
