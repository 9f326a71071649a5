package consul_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/consul"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

const management = "7c6d4e0e-0000-4000-8000-5f3759df0001"

// A server that allows nothing to whoever has no right to it.
func TestWithRights(t *testing.T) {
	leak.Check(t)
	s := storetest.Consul(t, 1, func(c map[string]any) {
		c["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": management, "agent": management},
		}
	})
	c := client(t, s.Addrs()[0], as(management))
	alone(t, s, c, map[string]func(*testing.T, *storetest.Servers){
		"Read": rightsToRead, "Write": rightsToWrite, "TokenDeleted": tokenThatWasDeleted, "Restart": restartWithRights,
		"WithoutAToken": rightsWithoutAToken, "Revoke": rightsToRevoke,
	})
}

func as(token string) func(*api.Config) { return func(c *api.Config) { c.Token = token } }

// token makes a token with these rules.
func token(t testing.TB, c *api.Client, rules string) *api.ACLToken {
	t.Helper()
	name := strings.NewReplacer("/", "-", "#", "-").Replace(t.Name()) + time.Now().Format("150405.000000")[7:]
	p, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// What a token may not see is an error, never absence. Watching needs no more than the right to read.
func rightsToRead(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	for _, k := range []string{"full/a", "full/b"} {
		storetest.Put(t, consul.New(root), k, "1", dcs.Version{})
	}
	for name, c := range map[string]struct {
		rules string // "": no token
		dirs  string // of this and all others, those that may be read
	}{
		"no token":    {"", ""},
		"read":        {`key_prefix "demo/" { policy = "read" }`, "full empty"},
		"one key":     {`key "demo/full/a" { policy = "read" }`, ""},
		"all but one": {`key_prefix "demo/" { policy = "read" } key "demo/full/b" { policy = "deny" }`, "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret := ""
			if c.rules != "" {
				secret = token(t, root, c.rules).SecretID
			}
			store := connect(t, s.Addrs()[0], as(secret))
			for _, sub := range []string{"full", "empty"} {
				t.Run(sub, func(t *testing.T) {
					t.Parallel()
					snap, err := store.Get(t.Context(), dir+"/"+sub)
					var last error
					for s, err := range store.Watch(t.Context(), dir+"/"+sub) {
						if last = err; err != nil || s.Known() {
							break
						}
					}
					if strings.Contains(c.dirs, sub) {
						if err != nil || !snap.Known() || last != nil {
							t.Errorf("get ended with %v, watch with %v", err, last)
						}
						return
					}
					for _, err := range []error{err, last} {
						if err == nil || !strings.HasPrefix(err.Error(), "consul: read "+dir+"/"+sub) ||
							!strings.Contains(err.Error(), "key_prefix") || secret != "" && strings.Contains(err.Error(), secret) {
							t.Errorf("ended with %v", err)
						}
					}
					t.Log(err)
				})
			}
		})
	}
}

func rightsToWrite(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	v := storetest.Put(t, consul.New(root), "k", "1", dcs.Version{})
	reader := connect(t, s.Addrs()[0], as(token(t, root, `key_prefix "demo/" { policy = "read" }`).SecretID))
	blind := connect(t, s.Addrs()[0], as(token(t, root, `node_prefix "" { policy = "read" }`).SecretID))
	nobody := connect(t, s.Addrs()[0], as("7c6d4e0e-0000-4000-8000-5f3759df0009"))
	large := strings.Repeat("1", 500_000)
	for name, store := range map[string]*consul.Store{"reader": reader, "blind": blind, "nobody": nobody} {
		for _, prev := range []dcs.Version{{}, v} {
			for _, value := range []string{"2", large} {
				_, err := store.Put(t.Context(), dir+"/k", []byte(value), prev)
				if err == nil || errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) || !strings.Contains(err.Error(), `key "demo/k"`) {
					t.Errorf("%s: put at %v: %v", name, prev, err)
				}
			}
		}
		err := store.Delete(t.Context(), dir+"/k", v)
		if err == nil || errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) {
			t.Errorf("%s: delete: %v", name, err)
		}
		if err := store.Lease(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "session_prefix") {
			t.Errorf("%s: lease: %v", name, err)
		}
	}
	if snap, err := reader.Get(t.Context(), dir); err != nil || storetest.Content(snap) != "k=1" {
		t.Errorf("content is %v, %v", storetest.Content(snap), err)
	}
}

// A token that is deleted ends the watch, with the last content and not with an empty one.
func tokenThatWasDeleted(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	storetest.Put(t, consul.New(root), "k", "1", dcs.Version{})
	tk := token(t, root, `key_prefix "demo/" { policy = "read" }`)
	store := connect(t, s.Addrs()[0], as(tk.SecretID))
	store.Reconfirm = time.Second
	deleted := false
	for snap, err := range store.Watch(t.Context(), dir) {
		if err != nil {
			if !deleted || storetest.Content(snap) != "k=1" || strings.Contains(err.Error(), tk.SecretID) {
				t.Errorf("ended with %q, %v", storetest.Content(snap), err)
			}
			t.Log(err)
			return
		}
		if snap.Known() && storetest.Content(snap) != "k=1" {
			t.Errorf("content is %q", storetest.Content(snap))
		}
		if snap.Known() && !deleted {
			deleted = true
			if _, err := root.ACL().TokenDelete(tk.AccessorID, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A server that has just come up does not know tokens and rights for a moment. No watch ends for that, nor does one
// lose a key.
func restartWithRights(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	admin := consul.New(root)
	v := storetest.Put(t, admin, "k", "1", dcs.Version{})
	store := connect(t, s.Addrs()[0], as(token(t, root, `key_prefix "demo/" { policy = "read" }`).SecretID))
	store.Reconfirm = time.Second
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=1"))
	for range 3 {
		s.Restart(t)
		began := time.Now()
		f.Until("fresh again", func(s dcs.Snapshot) bool {
			if storetest.Content(s) != "k=1" {
				t.Errorf("content is %q", storetest.Content(s))
			}
			return s.Stale == nil && s.At.After(began)
		})
	}
	storetest.Put(t, admin, "k", "2", v)
	f.Until("following", storetest.Fresh("k=2"))
}

// Somebody without a token may see a directory, or may not: Consul does not say that it left something out.
func rightsWithoutAToken(t *testing.T, s *storetest.Servers) {
	root := client(t, s.Addrs()[0], as(management))
	p, _, err := root.ACL().PolicyCreate(&api.ACLPolicy{Name: "anonymous", Rules: `key_prefix "demo/" { policy = "read" }`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const anonymous = "00000000-0000-0000-0000-000000000002"
	set := func(policies ...*api.ACLTokenPolicyLink) {
		t.Helper()
		if _, _, err := root.ACL().TokenUpdate(&api.ACLToken{AccessorID: anonymous, Policies: policies}, nil); err != nil {
			t.Fatal(err)
		}
	}
	v := storetest.Put(t, consul.New(root), "k", "1", dcs.Version{})
	set(&api.ACLTokenPolicyLink{ID: p.ID})
	store := connect(t, s.Addrs()[0])
	store.Reconfirm = time.Second
	denied := false
	for snap, err := range store.Watch(t.Context(), dir) {
		if storetest.Content(snap) == "" && snap.Known() {
			t.Error("the key is gone")
		}
		if err != nil {
			if !denied || !strings.Contains(err.Error(), "key_prefix") {
				t.Errorf("ended with %v", err)
			}
			return
		}
		if snap.Known() && !denied {
			denied = true
			set()
			storetest.Put(t, consul.New(root), "k", "2", v) // a question that was allowed may bring it, the next may not
		}
	}
}
