package pooler

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// markPrefix begins the comment line that keeps a target and its mark just under the header of [databases].
const markPrefix = "; pgconvoy "

// Rewrite returns the configuration file with the target in it: in every line of its [databases] section, or only
// in those of the named databases, host= and port= are replaced or added; and one comment line under the header says
// target and mark:
//
//	[databases]
//	; pgconvoy target=10.0.0.1:5432 mark=7312:4:99
//	app = host=10.0.0.1 port=5432 dbname=app
//
// Everything else stays byte for byte, and so does a file that already has the target and the mark. Files that are
// included are not followed. Errors wrap ErrInvalid, name the line and never hold its content.
func Rewrite(file []byte, databases []string, to Target) ([]byte, error) {
	to, err := to.normal()
	if err != nil {
		return nil, err
	}
	f, err := readTarget(file, databases)
	if err != nil {
		return nil, err
	}
	host, port := to.hostPort()
	var edits []edit
	for _, e := range f.entries {
		edits = append(edits, e.edits("host", host)...)
		edits = append(edits, e.edits("port", port)...)
	}
	edits = append(edits, f.markEdit(file, markLine(databases, to)))
	return apply(file, edits), nil
}

// ReadTarget returns the target that the file has for the named databases (none: all of its [databases] section),
// with its mark when the comment line agrees with the databases. known is false when the lines disagree or one has
// no literal address. Errors wrap ErrInvalid.
func ReadTarget(file []byte, databases []string) (target Target, known bool, err error) {
	f, err := readTarget(file, databases)
	if err != nil {
		return Target{}, false, err
	}
	return f.target, f.known, nil
}

// targetFile is what matters here of a configuration file.
type targetFile struct {
	entries  []entryText
	names    []string // of the entries, without "*"
	wildcard bool     // "*" is among the entries
	header   item     // the first [databases]
	mark     item     // our comment line; end is 0 when there is none
	target   Target
	known    bool
	includes bool
}

type entryText struct {
	name   string
	item   item
	params []param
}

func readTarget(file []byte, databases []string) (targetFile, error) {
	items, err := scan(file)
	if err != nil {
		return targetFile{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var f targetFile
	var marked Target
	hasHeader := false
	for _, it := range items {
		switch {
		case it.kind == section && it.section == "databases" && !hasHeader:
			f.header, hasHeader = it, true
		case it.kind == include:
			f.includes = true
		case it.kind == comment && f.mark.end == 0:
			if t, ok := parseMarkLine(string(file[it.start:it.end]), databases); ok {
				f.mark, marked = it, t
			}
		case it.kind == pair && it.section == "databases" && (len(databases) == 0 || slices.Contains(databases, it.key)):
			params, err := scanParams(string(file[it.start:it.end]))
			if err != nil {
				return targetFile{}, fmt.Errorf("%w: line %d: database %q: %w", ErrInvalid, it.line, it.key, err)
			}
			f.entries = append(f.entries, entryText{it.key, it, params})
			if it.key == "*" {
				f.wildcard = true
			} else if !slices.Contains(f.names, it.key) {
				f.names = append(f.names, it.key)
			}
		}
	}
	if !hasHeader {
		return targetFile{}, fmt.Errorf("%w: the file has no [databases] section of its own; included files are not rewritten", ErrInvalid)
	}
	for _, name := range databases {
		if !slices.Contains(f.names, name) && !(name == "*" && f.wildcard) {
			return targetFile{}, fmt.Errorf("%w: database %q has no line of its own in [databases]", ErrInvalid, name)
		}
	}
	if len(f.entries) == 0 {
		return targetFile{}, fmt.Errorf("%w: the [databases] section has no database; included files are not rewritten", ErrInvalid)
	}
	f.target, f.known = commonTarget(f.entries)
	if f.known && f.target.SameHosts(marked) {
		f.target.Mark = marked.Mark
	}
	return f, nil
}

// commonTarget is the one target of all entries, if there is one.
func commonTarget(entries []entryText) (Target, bool) {
	var common Target
	for i, e := range entries {
		t, ok := parseHosts(e.get("host"), cmp.Or(e.get("port"), "5432"))
		if !ok || i > 0 && !t.SameHosts(common) {
			return Target{}, false
		}
		common = t
	}
	return common, true
}

// get returns the last value of a key, which is the one that PgBouncer takes.
func (e entryText) get(key string) (value string) {
	for _, p := range e.params {
		if p.key == key {
			value = p.value
		}
	}
	return value
}

// edit replaces file[start:end] by text.
type edit struct {
	start, end int
	text       string
}

// edits makes every value of the key in the entry equal to value, and adds the key where it is absent.
func (e entryText) edits(key, value string) (edits []edit) {
	found := false
	for _, p := range e.params {
		if p.key != key {
			continue
		}
		found = true
		if p.value != value {
			edits = append(edits, edit{e.item.start + p.start, e.item.start + p.end, value})
		}
	}
	if !found {
		edits = append(edits, edit{e.item.end, e.item.end, " " + key + "=" + value})
	}
	return edits
}

// markEdit puts the comment line in place of the old one, or under the header.
func (f targetFile) markEdit(file []byte, line string) edit {
	if f.mark.end > 0 {
		return edit{f.mark.start, f.mark.end, line}
	}
	end := bytes.IndexByte(file[f.header.end:], '\n')
	if end < 0 {
		return edit{len(file), len(file), "\n" + line + "\n"}
	}
	at := f.header.end + end + 1
	if bytes.HasSuffix(file[:at], []byte("\r\n")) {
		return edit{at, at, line + "\r\n"}
	}
	return edit{at, at, line + "\n"}
}

// apply makes the edits, which do not overlap. Those at one place keep their order.
func apply(file []byte, edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(file[at:e.start])
		out.WriteString(e.text)
		at = e.end
	}
	out.Write(file[at:])
	return out.Bytes()
}

func markLine(databases []string, t Target) string {
	line := markPrefix
	if len(databases) > 0 {
		line += "databases=" + strings.Join(sortedNames(databases), ",") + " "
	}
	return line + "target=" + t.hosts() + " mark=" + t.Mark
}

// parseMarkLine reads a comment line that markLine wrote for the same databases.
func parseMarkLine(line string, databases []string) (t Target, ok bool) {
	line, ok = strings.CutPrefix(line+" ", markPrefix) // a trimmed line with an empty mark has lost nothing but this
	if !ok {
		return Target{}, false
	}
	if len(databases) > 0 {
		line, ok = strings.CutPrefix(line, "databases="+strings.Join(sortedNames(databases), ",")+" ")
		if !ok {
			return Target{}, false
		}
	}
	line, ok = strings.CutPrefix(line, "target=")
	if !ok {
		return Target{}, false
	}
	hosts, mark, ok := strings.Cut(line, " mark=")
	if !ok {
		return Target{}, false
	}
	t.Mark = strings.TrimSuffix(mark, " ")
	if hosts != "refuse" {
		for h := range strings.SplitSeq(hosts, ",") {
			ap, err := netip.ParseAddrPort(h)
			if err != nil {
				return Target{Hosts: []netip.AddrPort{{}}}, true // ours, but damaged: agrees with nothing
			}
			t.Hosts = append(t.Hosts, ap)
		}
	}
	return t, true
}

func sortedNames(names []string) []string { return slices.Sorted(slices.Values(names)) }
