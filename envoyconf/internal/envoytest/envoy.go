package envoytest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
)

// Envoy is one running Envoy.
type Envoy struct {
	t     testing.TB
	Admin netip.AddrPort
	Log   string // its log file
	cmd   *exec.Cmd
	done  chan struct{}
}

// Start runs Envoy with one worker until the test ends. Its log is shown when the test fails.
func Start(t testing.TB, bootstrap []byte, admin netip.AddrPort) *Envoy {
	t.Helper()
	bin := Binary(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(config, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Envoy{t: t, Admin: admin, Log: filepath.Join(dir, "envoy.log"), done: make(chan struct{})}
	log, err := os.Create(e.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(bin, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = pdeathsig()
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = e.cmd.Wait()
		close(e.done)
	}()
	t.Cleanup(e.stop)
	return e
}

func (e *Envoy) stop() {
	_ = e.cmd.Process.Signal(syscall.SIGKILL)
	<-e.done
	if e.t.Failed() {
		if b, err := os.ReadFile(e.Log); err == nil {
			e.t.Logf("envoy log:\n%s", b)
		}
	}
}

// Kill ends Envoy at once and waits for it.
func (e *Envoy) Kill() {
	_ = e.cmd.Process.Kill()
	<-e.done
}

// Ready waits until Envoy says that it serves.
func (e *Envoy) Ready() {
	e.t.Helper()
	Eventually(e.t, time.Minute, "envoy to be ready", func() error {
		select {
		case <-e.done:
			e.t.Fatalf("envoy ended: %v", e.cmd.ProcessState)
		default:
		}
		_, err := e.Get("/ready")
		return err
	})
}

// answers is how long one answer may take, on a machine that is busy with other things.
const answers = 20 * time.Second

// Get asks the admin interface.
func (e *Envoy) Get(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answers)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Admin.String()+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	}
	return string(b), err
}

// Healthy waits until Envoy's own health check calls exactly these endpoints of a service healthy.
func (e *Envoy) Healthy(service string, want ...*Backend) {
	e.t.Helper()
	Eventually(e.t, time.Minute, "health of the endpoints of "+service, func() error {
		out, err := e.Get("/clusters")
		if err != nil {
			return err
		}
		var up, all []string
		for line := range strings.Lines(out) {
			if rest, ok := strings.CutPrefix(line, service+"::127.0.0.1:"); ok && strings.HasSuffix(strings.TrimSpace(rest), "health_flags::healthy") {
				port, _, _ := strings.Cut(rest, "::")
				up = append(up, "127.0.0.1:"+port)
			}
		}
		for _, b := range want {
			all = append(all, b.Addr.String())
		}
		slices.Sort(up)
		slices.Sort(all)
		if !slices.Equal(up, all) {
			return fmt.Errorf("healthy are %v, want %v", up, all)
		}
		return nil
	})
}

// Eventually calls f until it returns nil, and fails the test with its last error when d has passed.
func Eventually(t testing.TB, d time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", d, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Free returns a loopback address that nobody uses, and that no other test is given before t ends.
func Free(t testing.TB) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(porttest.Free(t)))
}
