package pooler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// live is the running pooler's own view of the databases that matter.
type live struct {
	scope     scope
	target    Target // with the file's mark where the file agrees
	known     bool   // target is what every database has
	reason    string // why it is not known
	unseen    bool   // only "*" matters and the pooler cannot be made to show what it stands for
	foreign   string // a database that the file's own section does not have, although all of it matters
	global    string // "", "paused" or "suspended"
	paused    []string
	unpaused  []string
	inUse     map[string]int // server connections that a drain waits for, by database
	logins    int
	clients   int
	waiting   int
	databases []DatabaseRow // those that matter
}

// scope decides which databases matter: the named ones, or all that the file's own [databases] section makes.
type scope struct {
	names    []string
	wildcard bool
}

func (f targetFile) scope() scope { return scope{f.names, f.wildcard} }

func (s scope) matters(database string) bool {
	return database != "pgbouncer" && (s.wildcard || slices.Contains(s.names, database))
}

func (v live) matters(database string) bool { return v.scope.matters(database) }

// held: new transactions wait in at least one database that matters.
func (v live) held() bool { return v.global != "" || len(v.paused) > 0 }

// heldWhole: they wait in all. Where "*" matters, only a global PAUSE covers the databases that are yet unknown.
func (v live) heldWhole() bool {
	return v.global != "" || !v.scope.wildcard && len(v.unpaused) == 0 && len(v.paused) > 0
}

func (v live) drained() bool { return v.heldWhole() && len(v.inUse) == 0 }

// probeName is a database that nobody has. Asking for it makes PgBouncer show what "*" stands for at present.
const probeName = "pgconvoy_probe"

// look reads the running pooler. f says which databases matter and what mark the file has.
func (s *session) look(ctx context.Context, f targetFile) (live, error) {
	v := live{scope: f.scope(), inUse: map[string]int{}}
	if err := s.lookDatabases(ctx, f, &v); err != nil {
		return v, err
	}
	return v, s.lookActivity(ctx, &v)
}

// lookActivity reads what is held and what is in use.
func (s *session) lookActivity(ctx context.Context, v *live) error {
	type keyValue struct {
		Key   string `show:"key"`
		Value bool   `show:"value"`
	}
	states, err := show[keyValue](ctx, s, "STATE")
	if err != nil {
		return err
	}
	v.global = ""
	for _, st := range states {
		if st.Value && st.Key != "active" {
			v.global = st.Key
		}
	}
	pools, err := show[PoolRow](ctx, s, "POOLS")
	if err != nil {
		return err
	}
	v.clients, v.waiting, v.logins = 0, 0, 0
	v.inUse = map[string]int{}
	for _, p := range pools {
		if !v.matters(p.Database) {
			continue
		}
		v.clients += p.ClientActive + p.ClientWaiting
		v.waiting += p.ClientWaiting
		v.logins += p.ServerLogin
		if n := p.ServerActive + p.ServerTested; n > 0 {
			v.inUse[p.Database] += n
		}
	}
	return nil
}

// lookDatabases reads where the databases point to and which are paused on their own.
func (s *session) lookDatabases(ctx context.Context, f targetFile, v *live) error {
	rows, err := show[DatabaseRow](ctx, s, "DATABASES")
	if err != nil {
		return err
	}
	if f.wildcard && !slices.ContainsFunc(rows, func(r DatabaseRow) bool { return v.matters(r.Name) && !slices.Contains(f.names, r.Name) }) {
		// Only databases that were asked for are shown, and "*" never. WAIT_CLOSE registers one by its name, answers
		// at once since it has no servers, and has no other effect; it goes with autodb_idle_timeout.
		err := s.exec(ctx, "WAIT_CLOSE", probeName)
		if _, refused := errors.AsType[*CommandError](err); err != nil && !refused { // refused: too old, or no admin
			return err
		}
		if rows, err = show[DatabaseRow](ctx, s, "DATABASES"); err != nil {
			return err
		}
	}
	v.databases, v.paused, v.unpaused = nil, nil, nil
	v.target, v.known, v.reason, v.foreign = Target{}, false, "", ""
	seen := map[string]bool{}
	for _, r := range rows {
		if !v.matters(r.Name) {
			if r.Name != "pgbouncer" && len(s.l.Databases) == 0 {
				v.foreign = r.Name
				v.reason = fmt.Sprintf("database %q is not in %s itself (an included file?)", r.Name, s.l.Config)
			}
			continue
		}
		seen[r.Name] = true
		v.databases = append(v.databases, r)
		if r.Paused {
			v.paused = append(v.paused, r.Name)
		} else if r.Name != probeName {
			v.unpaused = append(v.unpaused, r.Name)
		}
	}
	for _, name := range f.names {
		if !seen[name] && v.reason == "" {
			v.reason = fmt.Sprintf("database %q is in the file but the running pooler does not have it", name)
		}
	}
	v.unseen = false
	v.commonTarget(f)
	return nil
}

// commonTarget fills in the target that all databases have.
func (v *live) commonTarget(f targetFile) {
	if v.reason != "" {
		return
	}
	for i, r := range v.databases {
		t, ok := parseHosts(r.Host, r.Port)
		switch {
		case !ok && (r.Host == "" || strings.HasPrefix(r.Host, "/")):
			v.reason = fmt.Sprintf("database %q uses a Unix socket", r.Name)
			return
		case !ok:
			v.reason = fmt.Sprintf("database %q has host %q port %s, not literal addresses", r.Name, r.Host, r.Port)
			return
		case i > 0 && !t.SameHosts(v.target):
			v.reason = fmt.Sprintf("database %q points to %s, but %q to %s", r.Name, t, v.databases[0].Name, v.target)
			v.target = Target{}
			return
		}
		v.target = t
	}
	v.known = len(v.databases) > 0
	if v.unseen = !v.known; v.unseen {
		v.reason = "no client has asked for a database yet, so that it cannot be seen what * stands for"
	}
	if v.known && f.known && f.target.SameHosts(v.target) {
		v.target.Mark = f.target.Mark
	}
}
