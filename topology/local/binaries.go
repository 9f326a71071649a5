package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/dcsserver"
)

// Binaries says where the programs of a stack are. Empty fields are looked for: in what the set-up has installed
// ($PGCONVOY_HOME, the user's cache, /opt/pgconvoy), in the PATH, and in the usual folders.
type Binaries struct {
	Postgres  string // the folder that holds postgres, initdb, pg_rewind and the like
	Python    string // an interpreter that has Patroni
	PgBouncer string
	Envoy     string
	Tini      string

	Consul    string // of a stack that runs Consul
	Java      string // of one that runs ZooKeeper
	ZooKeeper string // likewise: its jar, which names its libraries
}

// The oldest versions that a stack runs with, and why.
var oldest = map[string]string{
	"PostgreSQL": "13",     // the oldest that Patroni 4.1 is tested with here
	"Patroni":    "4.0",    // roles and quorum as this package reads them
	"PgBouncer":  "1.19",   // SHOW STATE tells whether it is paused
	"Envoy":      "1.30",   // the typed load-balancing policy
	"Consul":     "1.15.3", // server_rejoin_age_max
}

// Find fills in the empty fields, runs each program for its version, and names each one that is missing or too old,
// with what to do. Stores are the kinds of store that the stack is to run, whose programs are looked for too: "consul",
// "zookeeper". The second result is the versions found, by program.
func (b Binaries) Find(ctx context.Context, stores ...string) (Binaries, map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var errs []error
	setup := "make setup"
	missing := func(program, field, looked string) {
		errs = append(errs, fmt.Errorf("local: %s was not found (%s); run `%s`, or set Binaries.%s", program, looked, setup, field))
	}
	find := func(to *string, program, field string, candidates []string) {
		if *to == "" {
			*to = firstExecutable(candidates)
		}
		if *to == "" {
			missing(program, field, "looked at "+strings.Join(candidates, ", "))
		} else if err := executable(*to); err != nil {
			errs = append(errs, fmt.Errorf("local: %s: %w; set Binaries.%s", program, err, field))
			*to = ""
		}
	}
	if b.Postgres == "" {
		b.Postgres = newestPostgres()
	}
	if b.Postgres == "" {
		missing("PostgreSQL", "Postgres", "looked at /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and PATH")
	}
	find(&b.Python, "Python with Patroni", "Python", installed("patroni-python"))
	find(&b.PgBouncer, "PgBouncer", "PgBouncer", append(installed("pgbouncer"), inPath("pgbouncer")...))
	find(&b.Envoy, "Envoy", "Envoy", append(installed("envoy"), inPath("envoy")...))
	find(&b.Tini, "tini", "Tini", append(installed("tini"), inPath("tini")...))
	setup = "scripts/setup --stores"
	if slices.Contains(stores, consulKind) {
		find(&b.Consul, "Consul", "Consul", append(installed("consul"), inPath("consul")...))
	} else {
		b.Consul = "" // not asked for its version
	}
	if slices.Contains(stores, zookeeperKind) {
		find(&b.Java, "Java", "Java", inPath("java"))
		b.ZooKeeper = cmp.Or(b.ZooKeeper, dcsserver.ZooKeeperJar)
		if _, err := os.Stat(b.ZooKeeper); err != nil {
			missing("ZooKeeper", "ZooKeeper", "looked at "+b.ZooKeeper)
		}
	}

	versions, err := b.versions(ctx)
	return b, versions, errors.Join(append(errs, err)...)
}

// versions asks each program, all at once: some take a tenth of a second to say it.
func (b Binaries) versions(ctx context.Context) (map[string]string, error) {
	ask := map[string][]string{}
	if b.Postgres != "" {
		ask["PostgreSQL"] = []string{filepath.Join(b.Postgres, "postgres"), "--version"}
	}
	if b.Python != "" {
		ask["Patroni"] = []string{b.Python, "-m", "patroni", "--version"}
	}
	if b.PgBouncer != "" {
		ask["PgBouncer"] = []string{b.PgBouncer, "--version"}
	}
	if b.Envoy != "" {
		ask["Envoy"] = []string{b.Envoy, "--version"}
	}
	if b.Consul != "" {
		ask["Consul"] = []string{b.Consul, "--version"}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	versions := map[string]string{}
	var errs []error
	setup := func(program string) string {
		if program == "Consul" {
			return "scripts/setup --stores"
		}
		return "make setup"
	}
	for program, argv := range ask {
		wg.Go(func() {
			out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			v := versionIn(string(out))
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("local: %s (%s) does not tell its version: %w: %s", program, argv[0], err, strings.TrimSpace(string(out))))
			case v == "":
				errs = append(errs, fmt.Errorf("local: %s (%s) says %q, which holds no version", program, argv[0], strings.TrimSpace(string(out))))
			case older(v, oldest[program]):
				errs = append(errs, fmt.Errorf("local: %s %s (%s) is too old, %s or newer is needed; run `%s`, or name another one in Binaries", program, v, argv[0], oldest[program], setup(program)))
			}
			versions[program] = v
		})
	}
	wg.Wait()
	return versions, errors.Join(errs...)
}

// homes are the folders that the set-up installs into, in the order in which they are looked at.
func homes() []string {
	var dirs []string
	if h := os.Getenv("PGCONVOY_HOME"); h != "" {
		dirs = append(dirs, h)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "pgconvoy"))
	}
	return append(dirs, "/opt/pgconvoy")
}

func installed(program string) []string {
	var paths []string
	for _, h := range homes() {
		paths = append(paths, filepath.Join(h, "bin", program))
	}
	return paths
}

func inPath(program string) []string {
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin")
	var paths []string
	for _, d := range dirs {
		if filepath.IsAbs(d) {
			paths = append(paths, filepath.Join(d, program))
		}
	}
	return paths
}

func firstExecutable(paths []string) string {
	for _, p := range paths {
		if executable(p) == nil {
			return p
		}
	}
	return ""
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s cannot be executed", path)
	}
	return nil
}

// newestPostgres is the folder of the newest server that the usual packages have installed.
func newestPostgres() string {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"} {
		found, _ := filepath.Glob(pattern) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	slices.SortFunc(dirs, func(a, b string) int {
		if older(versionIn(a), versionIn(b)) {
			return 1
		}
		return -1
	})
	for _, p := range append(dirs, inPath("postgres")...) {
		if executable(p) == nil {
			return filepath.Dir(p)
		}
	}
	return ""
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)*`)

// versionIn is the first version number in a text. Envoy puts a hash before it.
func versionIn(text string) string {
	if _, after, ok := strings.Cut(text, "/"); ok && strings.Contains(text, "version:") {
		text = after
	}
	return versionPattern.FindString(text)
}

func older(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		part := func(s []string) (n int) {
			if i < len(s) {
				n, _ = strconv.Atoi(s[i]) // digits only, by the pattern
			}
			return n
		}
		if p, q := part(x), part(y); p != q {
			return p < q
		}
	}
	return false
}
