package pooler

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
)

// UserList is PgBouncer's auth_file: who may log in, and with what.
type UserList []User

// User is one line of a UserList.
type User struct {
	Name string // at most 127 bytes
	// Password is a plain password, "md5" and a hash, or a SCRAM verifier; at most 995 bytes, which every PgBouncer
	// since 1.16 reads. Empty: this user has no password. Printing a User does not show it.
	Password Secret
}

const (
	maxUserName = 127
	maxPassword = 995
)

// Bytes writes the file in the order of the list. Errors wrap ErrInvalid and name the user, never the password.
func (l UserList) Bytes() ([]byte, error) {
	var b bytes.Buffer
	seen := map[string]bool{}
	for i, u := range l {
		switch {
		case u.Name == "" || len(u.Name) > maxUserName || hasBreak(u.Name):
			return nil, fmt.Errorf("%w: UserList[%d].Name: want 1 to %d bytes without line breaks", ErrInvalid, i, maxUserName)
		case seen[u.Name]:
			return nil, fmt.Errorf("%w: UserList[%d].Name: %q is there twice", ErrInvalid, i, u.Name)
		case len(u.Password) > maxPassword || hasBreak(string(u.Password)):
			return nil, fmt.Errorf("%w: UserList[%d] (%s).Password: want at most %d bytes without line breaks", ErrInvalid, i, u.Name, maxPassword)
		}
		seen[u.Name] = true
		b.WriteString(quoteUser(u.Name) + " " + quoteUser(string(u.Password)) + "\n")
	}
	return b.Bytes(), nil
}

// WriteFile writes the file in one rename. A new file gets mode 0600; one that exists keeps its mode and owner.
// PgBouncer reads it at the next RELOAD.
func (l UserList) WriteFile(path string) error {
	data, err := l.Bytes()
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}

// quoteUser doubles the quotes; nothing else has a meaning.
func quoteUser(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// ParseUserList reads an auth_file as PgBouncer does: ";" begins a comment line, and what follows the password on a
// line is ignored. Errors wrap ErrInvalid and name the line, never its content.
func ParseUserList(file []byte) (UserList, error) {
	var list UserList
	for p := 0; ; {
		for p < len(file) && isSpace(file[p]) {
			p++
		}
		if p == len(file) {
			return list, nil
		}
		start := p
		if file[p] != ';' {
			name, next, ok := readQuoted(file, p)
			if !ok {
				return nil, fmt.Errorf("%w: line %d: not a quoted user", ErrInvalid, lineOf(file, start))
			}
			// PgBouncer skips to the next quote, wherever that is; here only blanks may be between.
			for next < len(file) && isBlank(file[next]) {
				next++
			}
			password, next, ok := readQuoted(file, next)
			if !ok {
				return nil, fmt.Errorf("%w: line %d: not a quoted password", ErrInvalid, lineOf(file, start))
			}
			list = append(list, User{name, Secret(password)})
			p = next
		}
		if end := bytes.IndexByte(file[p:], '\n'); end >= 0 {
			p += end
		} else {
			p = len(file)
		}
	}
}

func readQuoted(file []byte, p int) (s string, next int, ok bool) {
	if p >= len(file) || file[p] != '"' {
		return "", 0, false
	}
	var b strings.Builder
	for p++; p < len(file); p++ {
		if file[p] == 0 {
			return "", 0, false
		}
		if file[p] == '"' {
			if p+1 == len(file) || file[p+1] != '"' {
				return b.String(), p + 1, true
			}
			p++
		}
		b.WriteByte(file[p])
	}
	return "", 0, false
}
