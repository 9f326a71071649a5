package consul

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Each key has one name in Consul and is had back from it; so has whatever else is there, unless it stands for a folder.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"", "/", "/a", "/service/demo/leader", "a/b", "/a/", "/ a", "/a%20", "/a%2F%2e.", "/ä\xff", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, ok := entry(&api.KVPair{Key: s}); ok == (s == "" || strings.HasSuffix(s, "/")) || ok && path(e.Key) != s {
			t.Errorf("%q became %q, %v", s, e.Key, ok)
		}
		if dcs.CheckKey("key", s) != nil {
			if checkDir(s) == nil {
				t.Errorf("%q is refused as a key, and not as a directory", s)
			}
			return
		}
		e, ok := entry(&api.KVPair{Key: path(s)})
		if !ok || e.Key != s {
			t.Errorf("%q became %q, %v", s, e.Key, ok)
		}
		if !strings.HasPrefix(path(s+"/k"), prefix(s)) || strings.HasPrefix(path(s), prefix(s)) {
			t.Errorf("the prefix of %q is %q", s, prefix(s))
		}
	})
}

// An answer that says that a transaction was rolled back is never taken for another one, and one that says that it was
// made gives a version or an error.
func FuzzTransaction(f *testing.F) {
	for _, s := range []string{
		``, `null`, `{}`, `{"Errors":[null]}`, `{"Errors":[{"OpIndex":0,"What":"key \"demo/k\" exists"}]}`,
		`{"Errors":[{"OpIndex":0,"What":"failed to check index, key \"demo/k\" doesn't exist"},{"OpIndex":1,"What":"invalid session \"x\""}]}`,
		`{"Errors":[{"OpIndex":1,"What":"failed to lock key \"demo/k\" due to lock delay"}]}`,
		`{"Results":[null]}`, `{"Results":[{"KV":null}]}`,
		`{"Results":[{"KV":{"Key":"demo/k","Flags":7,"CreateIndex":3,"ModifyIndex":4}}]}`,
		`{"Results":[{"KV":{"Key":"demo/k","Flags":7,"CreateIndex":4,"ModifyIndex":3}}]}`,
	} {
		f.Add(s)
	}
	c := change{key: "/demo/k", flags: 7}
	f.Fuzz(func(t *testing.T, body string) {
		why := c.rolledBack(api.StatusError{Code: 409, Body: body})
		if why == nil || errors.Is(why, dcs.ErrUnknown) {
			t.Errorf("rolled back: %v", why)
		}
		var resp api.TxnResponse
		if json.Unmarshal([]byte(body), &resp) != nil {
			return
		}
		if v, err := c.written(resp.Results); err == nil && (v.Created == 0 || v.Modified < v.Created) {
			t.Errorf("written at %v", v)
		}
	})
}
