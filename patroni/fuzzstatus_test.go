package patroni_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// FuzzStatus: whatever a member answers, it is a status or an error.
func FuzzStatus(f *testing.F) {
	for _, s := range []string{
		`{"state":"running","role":"master","timeline":3,"database_system_identifier":"7","server_version":160004,"patroni":{"version":"4.1.5","scope":"demo","name":"n1"}}`,
		`{"role":"replica","pause":true,"failsafe_mode_is_active":true,"replication_state":"streaming"}`, `{"timeline":-1}`, "{}", "null", "[]", "", "{",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		read := func(body string) (patroni.Status, error) {
			c := patroni.Client{HTTP: &http.Client{Transport: answer(body)}}
			return c.Status(t.Context(), "http://127.0.0.1:8008")
		}
		s, err := read(body)
		if err != nil {
			if s.Role == "master" {
				t.Errorf("half a status: %+v, %v", s, err)
			}
			return
		}
		if again, err := read(written(t, s)); err != nil || again != s || s.Role == "master" {
			t.Errorf("%q is %+v, read again %+v, %v", body, s, again, err)
		}
	})
}

// answer is a server that says this to everybody.
type answer string

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(a))), Request: r}, nil
}
