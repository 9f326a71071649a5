package local

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// folder is where a stack keeps everything.
type folder struct {
	dir       string
	throwaway bool // made by us, removed at the end
	user      *proc.User
	secrets   secrets
	unlock    func()
}

// secrets are the passwords of a stack's users, made once per folder.
type secrets struct {
	Path        string         `json:"path"` // the cluster that the folder holds
	Superuser   patroni.Secret `json:"superuser"`
	Replication patroni.Secret `json:"replication"`
	App         patroni.Secret `json:"app"`
	Console     patroni.Secret `json:"console"`
	REST        patroni.Secret `json:"rest"`
	Monitor     patroni.Secret `json:"monitor"` // of the user that agents ask servers as
}

// marker tells that a folder is a stack's.
const marker = "stack.json"

// openFolder takes a folder: an empty one, or one that an earlier run with the same path left. An empty dir is a
// temporary one.
func openFolder(dir, path string) (*folder, error) {
	u, err := databaseUser()
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, user: u}
	if dir == "" {
		if f.dir, err = os.MkdirTemp("", "pgconvoy-"); err != nil {
			return nil, fmt.Errorf("local: %w", err)
		}
		f.throwaway = true
	} else if f.dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("local: Dir: %w", err)
	}
	if err := f.take(path); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) take(path string) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("local: Dir: %w", err)
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("local: Dir: %w", err)
	}
	name := filepath.Join(f.dir, marker)
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(entries) > 0:
		return fmt.Errorf("local: Dir %s is not empty and not a stack's (it has no %s); give an empty folder", f.dir, marker)
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("local: Dir %s is not yours: %w; give another folder", f.dir, err)
	default:
		if err := json.Unmarshal(b, &f.secrets); err != nil {
			return fmt.Errorf("local: Dir %s: %s is not a stack's: %w; give another folder", f.dir, marker, err)
		}
		if f.secrets.Path != path {
			return fmt.Errorf("local: Dir %s holds the cluster %s, the Spec's Path is %s; give another folder", f.dir, f.secrets.Path, path)
		}
	}
	if f.unlock, err = lock(filepath.Join(f.dir, "stack.lock")); err != nil {
		return fmt.Errorf("local: Dir %s: %w", f.dir, err)
	}
	if f.user != nil {
		if err := reachable(f.dir); err != nil {
			return err
		}
		if err := os.Chmod(f.dir, 0o755); err != nil { // the database's user must get through
			return fmt.Errorf("local: Dir: %w", err)
		}
	}
	if f.secrets.Path != "" {
		return nil
	}
	f.secrets = secrets{path, secret(), secret(), secret(), secret(), secret(), secret()}
	out, err := json.Marshal(f.secrets)
	if err != nil {
		return err
	}
	return atomicfile.Write(name, out, 0o600)
}

func secret() patroni.Secret { return patroni.Secret(rand.Text()) }

// own makes a folder for a program that runs as the database's user.
func (f *folder) own(parts ...string) (string, error) {
	dir := filepath.Join(append([]string{f.dir}, parts...)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, f.give(dir)
}

// write makes a file for such a program.
func (f *folder) write(path string, data []byte, mode fs.FileMode) error {
	if err := atomicfile.Write(path, data, mode); err != nil {
		return err
	}
	return f.give(path)
}

// keep makes a file for ourselves alone.
func (f *folder) keep(path string, data []byte) error { return atomicfile.Write(path, data, 0o600) }

func (f *folder) give(path string) error {
	if f.user == nil {
		return nil
	}
	return os.Chown(path, int(f.user.UID), int(f.user.GID))
}

// close removes a throwaway folder and gives up the lock.
func (f *folder) close() error {
	var err error
	if f.throwaway {
		err = os.RemoveAll(f.dir)
	}
	if f.unlock != nil {
		f.unlock()
	}
	return err
}

// databaseUser is who the programs run as: PostgreSQL and PgBouncer refuse root. nil: as ourselves.
func databaseUser() (*proc.User, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &proc.User{Name: name, UID: uint32(uid), GID: uint32(gid), Home: u.HomeDir}, nil
		}
	}
	return nil, errors.New("local: PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
}

// reachable refuses a folder that another user cannot get to.
func reachable(dir string) error {
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("local: Dir: %w", err)
		}
		if st.Mode()&0o001 == 0 {
			return fmt.Errorf("local: Dir %s cannot be reached by the user that runs the databases: %s is closed to others; give a folder elsewhere", dir, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}
