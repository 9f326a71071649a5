package pooler

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
)

// Ini is a PgBouncer configuration file. The zero value is a file with an empty [pgbouncer] section, which
// PgBouncer accepts.
type Ini struct {
	// Includes are files that PgBouncer reads first, so that what is here wins. Relative ones count from its working
	// directory.
	Includes []string
	// Settings is the [pgbouncer] section. An empty value is a value there: "unix_socket_dir =" turns it off.
	// Quotes would become part of the value and are not needed.
	Settings Params
	// PeerID is this pooler's number among its Peers, 1 to 16383; zero: none. It is written as peer_id.
	PeerID int
	// Databases is the [databases] section. The name "*" stands for all databases without an entry; "pgbouncer" is
	// reserved. Params are host, port, dbname and the like; PgBouncer refuses unknown ones.
	Databases []Entry
	// Users is the [users] section: pool_mode, max_user_connections and the like for one user.
	Users []Entry
	// Peers is the [peers] section: the poolers that share one entry point, this one included or not. They pass
	// query cancellations on to each other.
	Peers []Peer
}

// Entry is one named line of [databases] or [users].
type Entry struct {
	Name   string // letters, digits and _ . - in at most 63 bytes, or "*"
	Params Params // none may be empty or have a line break; quoting is done here
}

// Peer is one line of [peers]: where the pooler with that number is reached by its fellows.
type Peer struct {
	ID       int // 1 to 16383
	Addr     netip.AddrPort
	PoolSize int // connections to it at most; zero: PgBouncer's default
}

// maxPeer is the largest peer_id: it has 14 bits in a cancel key.
const maxPeer = 16383

// Bytes writes the file. The order is that of the slices, and of the keys by name, so that equal values give equal
// bytes. Errors wrap ErrInvalid and name the field, never its value.
func (i Ini) Bytes() ([]byte, error) {
	var b bytes.Buffer
	for n, path := range i.Includes {
		if path == "" || strings.TrimSpace(path) != path || hasBreak(path) {
			return nil, fmt.Errorf("%w: Includes[%d]: empty, or with a line break, or with a blank at an end", ErrInvalid, n)
		}
		fmt.Fprintf(&b, "%%include %s\n", path)
	}
	b.WriteString("[pgbouncer]\n")
	if err := i.writeSettings(&b); err != nil {
		return nil, err
	}
	if err := writeEntries(&b, "databases", i.Databases); err != nil {
		return nil, err
	}
	if err := writeEntries(&b, "users", i.Users); err != nil {
		return nil, err
	}
	if err := writePeers(&b, i.Peers); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// WriteFile writes the file in one rename. A new file gets mode 0600, since entries may hold passwords; one that
// exists keeps its mode and owner. Everything else in it is replaced: to change only the target, use [Rewrite].
func (i Ini) WriteFile(path string) error {
	data, err := i.Bytes()
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}

func (i Ini) writeSettings(b *bytes.Buffer) error {
	for _, key := range slices.Sorted(maps.Keys(i.Settings)) {
		value := i.Settings[key]
		switch {
		case !isParamKey(key):
			return fmt.Errorf("%w: Settings[%q]: not the name of a setting", ErrInvalid, key)
		case key == "peer_id" && i.PeerID != 0:
			return fmt.Errorf("%w: Settings[%q]: PeerID is set too", ErrInvalid, key)
		case hasBreak(value):
			return fmt.Errorf("%w: Settings[%q]: the value has a line break or a NUL", ErrInvalid, key)
		case strings.TrimSpace(value) != value:
			return fmt.Errorf("%w: Settings[%q]: the value has blanks at an end, which PgBouncer drops", ErrInvalid, key)
		}
		b.WriteString(strings.TrimRight(key+" = "+value, " ") + "\n")
	}
	switch {
	case i.PeerID < 0 || i.PeerID > maxPeer:
		return fmt.Errorf("%w: PeerID: %d is not 1 to %d", ErrInvalid, i.PeerID, maxPeer)
	case i.PeerID > 0:
		fmt.Fprintf(b, "peer_id = %d\n", i.PeerID)
	}
	return nil
}

func writeEntries(b *bytes.Buffer, section string, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	fmt.Fprintf(b, "\n[%s]\n", section)
	seen := map[string]bool{}
	for n, e := range entries {
		field := strings.ToUpper(section[:1]) + section[1:]
		if err := checkName(e.Name); err != nil {
			return fmt.Errorf("%s[%d].Name: %w", field, n, err)
		}
		if section == "databases" && e.Name == "pgbouncer" || section == "users" && e.Name == "*" || seen[e.Name] {
			return fmt.Errorf("%w: %s[%d].Name: %q is reserved or there twice", ErrInvalid, field, n, e.Name)
		}
		seen[e.Name] = true
		b.WriteString(e.Name + " =")
		for _, key := range slices.SortedFunc(maps.Keys(e.Params), byImportance) {
			value := e.Params[key]
			switch {
			case !isParamKey(key):
				return fmt.Errorf("%w: %s[%d] (%s).Params[%q]: not the name of a parameter", ErrInvalid, field, n, e.Name, key)
			case value == "":
				return fmt.Errorf("%w: %s[%d] (%s).Params[%q]: empty, which PgBouncer refuses; leave the key out", ErrInvalid, field, n, e.Name, key)
			case hasBreak(value):
				return fmt.Errorf("%w: %s[%d] (%s).Params[%q]: the value has a line break or a NUL", ErrInvalid, field, n, e.Name, key)
			}
			b.WriteString(" " + key + "=" + quoteParam(value))
		}
		b.WriteByte('\n')
	}
	return nil
}

func writePeers(b *bytes.Buffer, peers []Peer) error {
	if len(peers) == 0 {
		return nil
	}
	b.WriteString("\n[peers]\n")
	seen := map[int]bool{}
	for n, p := range peers {
		switch {
		case p.ID < 1 || p.ID > maxPeer || seen[p.ID]:
			return fmt.Errorf("%w: Peers[%d].ID: %d is not 1 to %d, or there twice", ErrInvalid, n, p.ID, maxPeer)
		case !p.Addr.IsValid() || p.Addr.Port() == 0 || p.Addr.Addr().Zone() != "":
			return fmt.Errorf("%w: Peers[%d].Addr: %q is not a literal address without zone, and a port", ErrInvalid, n, p.Addr)
		case p.PoolSize < 0:
			return fmt.Errorf("%w: Peers[%d].PoolSize is negative", ErrInvalid, n)
		}
		seen[p.ID] = true
		fmt.Fprintf(b, "%d = host=%s port=%d", p.ID, p.Addr.Addr().Unmap(), p.Addr.Port())
		if p.PoolSize > 0 {
			b.WriteString(" pool_size=" + strconv.Itoa(p.PoolSize))
		}
		b.WriteByte('\n')
	}
	return nil
}

// byImportance puts where an entry points to first, for the reader.
func byImportance(a, b string) int {
	rank := func(k string) int {
		if i := slices.Index([]string{"host", "port", "dbname", "user", "password"}, k); i >= 0 {
			return i
		}
		return 5
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

func isParamKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

func hasBreak(s string) bool { return strings.ContainsAny(s, "\n\r\x00") }

// quoteParam writes a value of an entry: bare where no reader could doubt it, otherwise in single quotes, which are
// doubled inside. A backslash has no meaning.
func quoteParam(value string) string {
	if !strings.ContainsFunc(value, func(r rune) bool { return r >= 0x80 || !isKeyChar(byte(r)) && !strings.ContainsRune(",:/@", r) }) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", "''") + "'"
}
