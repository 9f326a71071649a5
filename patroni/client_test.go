package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/patroni"
)

const password = "hunter2-hunter2"

// rest is a member's REST API that answers as told, and remembers the last request.
type rest struct {
	url  string
	last atomic.Pointer[http.Request]
	body atomic.Value
	n    atomic.Int64
}

func newRest(t *testing.T, answer http.HandlerFunc) *rest {
	r := &rest{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.last.Store(req)
		r.body.Store(string(body))
		r.n.Add(1)
		answer(w, req)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// cut ends the connection after the request, without an answer or within it.
func cut(part string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, part)
			_ = conn.Close()
		}
	}
}

func TestClientErrors(t *testing.T) {
	noGoroutines(t)
	elsewhere := newRest(t, say(200, "{}"))
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		status  int // of the *Error; 0: there is none
		unknown bool
	}{
		{"done", say(200, `Successfully switched over to "n2"`), 0, false},
		{"scheduled", say(202, "Switchover scheduled"), 0, false},
		{"no credentials", say(401, "no auth header received"), 401, false},
		{"forbidden", say(403, "Access is denied"), 403, false},
		{"a precondition", say(412, "leader name does not match"), 412, false},
		{"refused", say(503, "Switchover failed"), 503, false},
		{"gave up waiting", say(503, "Switchover status unknown after 20 seconds; operation may still be in progress"), 503, true},
		{"gave up waiting, as older ones say it", say(503, "Switchover status unknown"), 503, true},
		{"a gateway without an answer", say(504, "timeout"), 504, true},
		{"a gateway that lost it", say(502, ""), 502, true},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.url, http.StatusTemporaryRedirect)
		}, 307, false},
		{"cut after the request", cut(""), 0, true},
		{"cut within the answer", cut("HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nSucc"), 0, true},
		{"cut within a refusal", cut("HTTP/1.0 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nSwit"), 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRest(t, c.answer)
			client := patroni.Client{Username: "admin", Password: password}
			err := client.Switchover(t.Context(), r.url, "n1", "n2")
			if errors.Is(err, patroni.ErrUnknown) != c.unknown {
				t.Errorf("%v, want unknown: %v", err, c.unknown)
			}
			refusal, ok := errors.AsType[*patroni.Error](err)
			if ok != (c.status != 0) || ok && (refusal.Status != c.status || refusal.Method != "POST" || refusal.URL != r.url+"/switchover") {
				t.Errorf("%#v", err)
			}
			if (err == nil) != (c.status == 0 && !c.unknown) {
				t.Errorf("%v", err)
			}
			if err != nil && (strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), password) || !strings.Contains(err.Error(), r.url)) {
				t.Errorf("%+v", err)
			}
			if n := r.n.Load(); n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
	if elsewhere.n.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestWhatWasNotSentIsNotUnknown(t *testing.T) {
	noGoroutines(t)
	refuses := fmt.Sprintf("http://127.0.0.1:%d", porttest.Free(t))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r := newRest(t, say(200, ""))
	secure := httptest.NewUnstartedServer(say(200, ""))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that fail
	secure.StartTLS()
	defer secure.Close()
	var client patroni.Client
	for name, err := range map[string]error{
		"nobody listens":            client.Restart(t.Context(), refuses),
		"ctx was over":              client.Restart(over, r.url),
		"no such host":              client.Restart(t.Context(), "http://host.invalid"),
		"not a URL":                 client.Restart(t.Context(), "http://u:"+password+"@[bad"),
		"a certificate of nobody's": client.Restart(t.Context(), secure.URL),
	} {
		if err == nil || errors.Is(err, patroni.ErrUnknown) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.n.Load() != 0 {
		t.Error("sent after the end of ctx")
	}
	// A transport that tells nothing may have sent it.
	client.HTTP = &http.Client{Transport: mute{}}
	if err := client.Restart(t.Context(), refuses); !errors.Is(err, patroni.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

type mute struct{}

func (mute) RoundTrip(*http.Request) (*http.Response, error) { return nil, errLost }

func TestAnAnswerThatDoesNotCome(t *testing.T) {
	noGoroutines(t)
	arrived := make(chan struct{}, 2)
	r := newRest(t, func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		<-req.Context().Done()
	})
	why := errors.New("the caller has waited long enough")
	leave := func() context.Context { // ends when the request has arrived: before that it is not unknown
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-arrived
			cancel(why)
		}()
		return ctx
	}
	var client patroni.Client
	if err := client.Wake(leave(), r.url); !errors.Is(err, patroni.ErrUnknown) || !errors.Is(err, why) {
		t.Error(err)
	}
	if _, err := client.Status(leave(), r.url); errors.Is(err, patroni.ErrUnknown) || !errors.Is(err, why) {
		t.Errorf("a read has no outcome: %v", err)
	}
	// The bound of a call is one as well.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := client.Wake(ctx, r.url); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestClientRequests(t *testing.T) {
	noGoroutines(t)
	r := newRest(t, say(200, "{}"))
	client := patroni.Client{Username: "admin", Password: password}
	for _, c := range []struct {
		name, method, path, body string
		call                     func() error
	}{
		{"switchover", "POST", "/switchover", `{"candidate":"n2","leader":"n1"}`, func() error { return client.Switchover(t.Context(), r.url, "n1", "n2") }},
		{"switchover to any", "POST", "/switchover", `{"leader":"n1"}`, func() error { return client.Switchover(t.Context(), r.url, "n1", "") }},
		{"restart", "POST", "/restart", `{}`, func() error { return client.Restart(t.Context(), r.url) }},
		{"pause", "PATCH", "/config", `{"pause":true}`, func() error {
			return client.PatchConfig(t.Context(), r.url, map[string]any{"pause": true})
		}},
		{"wake", "PATCH", "/config", `{"pgconvoy_wake":null}`, func() error { return client.Wake(t.Context(), r.url) }},
		{"status", "GET", "/patroni", ``, func() error { _, err := client.Status(t.Context(), r.url); return err }},
	} {
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		req := r.last.Load()
		if req.Method != c.method || req.URL.Path != c.path || r.body.Load() != c.body {
			t.Errorf("%s: %s %s %q", c.name, req.Method, req.URL.Path, r.body.Load())
		}
		u, p, sent := req.BasicAuth()
		if unsafe := c.method != "GET"; sent != unsafe || unsafe && (u != "admin" || p != password || req.ContentLength != int64(len(c.body))) {
			t.Errorf("%s: credentials %q %v, length %d", c.name, u, sent, req.ContentLength)
		}
	}
	client = patroni.Client{}
	if err := client.Wake(t.Context(), r.url); err != nil || r.last.Load().Header.Get("Authorization") != "" {
		t.Errorf("without credentials: %v, %q", err, r.last.Load().Header)
	}
}

func TestStatus(t *testing.T) {
	noGoroutines(t)
	r := newRest(t, say(200, `{"state":"running","postmaster_start_time":"2026-07-24 12:00:00.000000+00:00","role":"master","server_version":150004,
		"xlog":{"location":67108864},"timeline":3,"replication":[],"pause":true,"failsafe_mode_is_active":true,"cluster_unlocked":true,
		"database_system_identifier":"7268616322854375442","patroni":{"version":"3.3.11","scope":"demo","name":"n1"}}`))
	var client patroni.Client
	s, err := client.Status(t.Context(), r.url)
	if err != nil || s.Role != patroni.RolePrimary || s.State != "running" || s.Timeline != 3 || s.SystemID != systemID || s.Server != 150004 ||
		!s.Paused || !s.Failsafe || !s.Unlocked || s.Patroni.Name != "n1" || s.Patroni.Version != "3.3.11" {
		t.Errorf("%+v, %v", s, err)
	}
	r = newRest(t, say(503, `{"state":"unknown"}`))
	if _, err := client.Status(t.Context(), r.url); err == nil || errors.Is(err, patroni.ErrUnknown) {
		t.Errorf("a read has no outcome: %v", err)
	}
	for _, answer := range []http.HandlerFunc{say(200, "<html>"), cut(""), cut("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{")} {
		if s, err := client.Status(t.Context(), newRest(t, answer).url); err == nil || errors.Is(err, patroni.ErrUnknown) {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	client := patroni.Client{Username: "admin", Password: password}
	config := nodeConfig()
	config.REST.Authentication.Password = password
	config.Etcd3.Password, config.Postgres.Authentication.Rewind.Password = password, password
	config.Consul = &patroni.ConsulConfig{Token: password}
	config.ZooKeeper = &patroni.ZooKeeperConfig{KeyPassword: password, AuthData: map[string]patroni.Secret{"digest": password}}
	holder := struct {
		A *patroni.Client
		B *patroni.NodeConfig
		C *patroni.PostgresConfig
		D *patroni.RESTConfig
		E *patroni.Authentication
		F *patroni.Etcd3Config
		G *patroni.ConsulConfig
		H *patroni.ZooKeeperConfig
	}{&client, &config, &config.Postgres, &config.REST, &config.Postgres.Authentication, config.Etcd3, config.Consul, config.ZooKeeper}
	for _, v := range []any{client, &client, config, &config, config.REST.Authentication, client.Password, []patroni.Secret{password}, holder, &holder} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, password) || strings.Contains(text, fmt.Sprintf("%x", password)) {
				t.Errorf("%s of %T: %s", verb, v, text)
			}
		}
	}
	if s := fmt.Sprintf("%s|%#v|%q|%s", client.Password, client.Password, client.Password, patroni.Secret("")); s != `***|"***"|"***"|` {
		t.Error(s)
	}
	if s := client.Password.String(); s != "***" {
		t.Error(s)
	}
}
