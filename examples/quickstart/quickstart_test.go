package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/local"
)

// program is a built quickstart with a folder for temporary files of its own, as a certain user.
type program struct {
	path, tmp string
	cred      *syscall.Credential
}

func build(t *testing.T, cred *syscall.Credential, stores ...string) program {
	t.Helper()
	if _, _, err := (local.Binaries{}).Find(t.Context(), stores...); err != nil {
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("the programs of a stack are missing (scripts/setup --stores installs them): %v", err)
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // other users must get through
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := program{path: filepath.Join(dir, "quickstart"), tmp: filepath.Join(dir, "tmp"), cred: cred}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := errors.Join(os.Chmod(p.path, 0o755), os.Mkdir(p.tmp, 0o755)); err != nil {
		t.Fatal(err)
	}
	if cred != nil {
		if err := os.Chown(p.tmp, int(cred.Uid), int(cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p program) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+p.tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	if p.cred != nil {
		cmd.Env = append(cmd.Env, "HOME="+p.tmp)
	}
	return cmd
}

// left lists the processes that belong to the program's temporary folder.
func (p program) left(t *testing.T) (found []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // not a process, or gone
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")) // gone meanwhile
		if strings.Contains(string(cmdline), p.tmp) || strings.HasPrefix(cwd, p.tmp) {
			found = append(found, e.Name()+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

func (p program) checkClean(t *testing.T) {
	t.Helper()
	if left := p.left(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if files, err := os.ReadDir(p.tmp); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v %v", files, err)
	}
}

// nobody is an ordinary user to run as, where the test runs as root.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// TestQuickstart runs it as a newcomer does, as this user and, where this is root, as an ordinary one too, and on each
// store.
func TestQuickstart(t *testing.T) {
	type how struct {
		name  string
		cred  *syscall.Credential
		store string
	}
	hows := []how{{"this user", nil, "embedded"}, {"Consul", nil, "consul"}, {"ZooKeeper", nil, "zookeeper"}}
	if os.Geteuid() == 0 {
		hows = append(hows, how{"an ordinary user", nobody(t), "embedded"})
	}
	for _, how := range hows {
		t.Run(how.name, func(t *testing.T) {
			p := build(t, how.cred, how.store)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			var out bytes.Buffer
			cmd := p.command(ctx, "-dcs", how.store)
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			t.Logf("\n%s", out.String())
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(`(?m)^planned switchover +\d+ +0 +0 +0 +0 `).MatchString(out.String()) {
				t.Error("the planned switchover did not pass with 0 failed, 0 lost and 0 surplus")
			}
			if !regexp.MustCompile(`(?m)^primary killed +\d+ +\d+ +\d+ +0 +0 `).MatchString(out.String()) {
				t.Error("the crash did not pass with 0 lost and 0 surplus")
			}
			p.checkClean(t)
		})
	}
}

// TestInterrupt: Ctrl-C at any moment leaves no process and no file.
func TestInterrupt(t *testing.T) {
	p := build(t, nil)
	for _, when := range []string{"waiting for the databases", "waiting for a writable primary", "waiting for replicas", "planned switchover", "phase switch"} {
		t.Run(when, func(t *testing.T) {
			var out bytes.Buffer
			cmd := p.command(t.Context())
			pipe, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = pipe.Close() }()
			cmd.Stdout, cmd.Stderr = w, w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = w.Close() // the program has its own
			buf := make([]byte, 4096)
			for sent := false; ; {
				n, err := pipe.Read(buf)
				out.Write(buf[:n])
				if err != nil {
					break // it has ended
				}
				if !sent && strings.Contains(out.String(), when) {
					sent = true
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
				}
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
				t.Errorf("ended with %v, want exit code 130\n%s", err, out.String())
			}
			p.checkClean(t)
		})
	}
}

// TestKilled: after kill -9 of the program everything that it started ends by itself, its store too.
func TestKilled(t *testing.T) {
	p := build(t, nil, "consul", "zookeeper")
	for store, when := range map[string]string{
		"embedded": "ready: all routed", "consul": "waiting for a writable primary", "zookeeper": "waiting for a writable primary",
	} {
		t.Run(store, func(t *testing.T) {
			var out bytes.Buffer
			cmd := p.command(t.Context(), "-dcs", store)
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 4096)
			for !strings.Contains(out.String(), when) {
				n, err := pipe.Read(buf)
				if err != nil {
					t.Fatalf("%v\n%s", err, out.String())
				}
				out.Write(buf[:n])
			}
			if left := strings.Join(p.left(t), "\n"); !strings.Contains(left, "patroni.yml") || store != "embedded" && !strings.Contains(left, store+"-1") {
				t.Errorf("nothing to be killed: %s", left)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as asked
			deadline := time.Now().Add(time.Minute)
			for left := p.left(t); len(left) > 0; left = p.left(t) {
				if time.Now().After(deadline) {
					t.Fatal(fmt.Errorf("processes are left a minute later: %v", left))
				}
				time.Sleep(50 * time.Millisecond) // there is nothing to await: they are not our children
			}
		})
	}
}
