package consul_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/consul"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// To revoke a lease takes the rights to read its key and to write sessions.
func rightsToRevoke(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	with := func(rules string) *consul.Store {
		return connect(t, s.Addrs()[0], as(token(t, root, rules).SecretID))
	}
	store := consul.New(root)
	err := store.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		v := storetest.Put(t, w, "k", "1", dcs.Version{})
		for rules, want := range map[string]string{
			`key_prefix "demo/" { policy = "write" }`:                                "session_prefix",
			`session_prefix "" { policy = "write" }`:                                 dcs.ErrConflict.Error(), // it sees no key
			`key "demo/other" { policy = "read" }`:                                   "not applied",
			`key "demo/k" { policy = "read" } session_prefix "" { policy = "read" }`: "session_prefix",
		} {
			err := with(rules).Revoke(t.Context(), dir+"/k", []byte("1"), v)
			if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", rules, err, want)
			}
		}
		if snap, err := store.Get(t.Context(), dir); err != nil || storetest.Content(snap) != "k=1" {
			t.Errorf("content is %v, %v", storetest.Content(snap), err)
		}
		err := with(`key "demo/k" { policy = "read" } session_prefix "" { policy = "write" }`).Revoke(t.Context(), dir+"/k", []byte("1"), v)
		if err != nil {
			t.Errorf("with all rights: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err) // nothing is said when a lease that was lost is given back
	}
	if snap, err := store.Get(t.Context(), dir); err != nil || storetest.Content(snap) != "" {
		t.Errorf("content is %v, %v", storetest.Content(snap), err)
	}
}
