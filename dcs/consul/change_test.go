package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

func TestTransactions(t *testing.T) {
	v := dcs.Version{Created: 3, Modified: 7}
	for name, c := range map[string]struct {
		change
		owner string
		want  string
	}{
		"create":                 {change{}, "", "check-not-exists set"},
		"put":                    {change{prev: v}, "", "check-index@7 set"},
		"put to a session's key": {change{prev: v}, "other", "check-index@7 set"},
		"delete":                 {change{prev: v, remove: true}, "other", "check-index@7 delete-cas@7"},
		"leased create":          {change{session: "me"}, "", "check-not-exists lock=me"},
		"leased put":             {change{session: "me", prev: v}, "me", "check-index@7 lock=me"},
		"over nobody's":          {change{session: "me", prev: v}, "", "check-index@7 lock=me"},
		"over another's":         {change{session: "me", prev: v}, "other", "check-index@7 delete-cas@7 lock=me"},
	} {
		t.Run(name, func(t *testing.T) {
			c.key, c.value, c.flags = "/demo/k", []byte("1"), 5
			var got []string
			for _, op := range c.ops(c.owner) {
				s := string(op.KV.Verb)
				if op.KV.Index > 0 {
					s += fmt.Sprint("@", op.KV.Index)
				}
				if op.KV.Session != "" {
					s += "=" + op.KV.Session
				}
				if write := op.KV.Verb == api.KVSet || op.KV.Verb == api.KVLock; op.KV.Key != "demo/k" || write != (op.KV.Flags == 5) {
					t.Errorf("%s: %+v", s, op.KV)
				}
				got = append(got, s)
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// What an error of a write says about its outcome.
func TestOutcomes(t *testing.T) {
	var nothing, unknown error = nil, dcs.ErrUnknown
	for _, c := range []struct {
		err  error
		want error // unknown, or nothing was changed
	}{
		{errors.New("EOF"), unknown},
		{context.DeadlineExceeded, unknown},
		{&net.OpError{Op: "read", Err: errors.New("connection reset")}, unknown},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, nothing},
		{api.StatusError{Code: 500, Body: "No cluster leader"}, nothing},
		{api.StatusError{Code: 500, Body: "rpc error making call: No cluster leader"}, nothing},
		{api.StatusError{Code: 500, Body: "rpc error making call: EOF"}, unknown},
		{api.StatusError{Code: 500, Body: "raft apply failed: leadership lost while committing log"}, unknown},
		{api.StatusError{Code: 500, Body: "invalid key name, leading/trailing spaces are not allowed"}, nothing},
		{api.StatusError{Code: 502, Body: "Bad Gateway"}, unknown},
		{api.StatusError{Code: 503, Body: "upstream"}, unknown},
		{api.StatusError{Code: 503, Body: "rate limit exceeded for operation that can only be performed by the leader, try again later"}, nothing},
		{api.StatusError{Code: 429, Body: "RPC rate limit exceeded"}, nothing},
		{api.StatusError{Code: 403, Body: "Permission denied"}, nothing},
		{api.StatusError{Code: 408}, unknown},
		{api.StatusError{Code: 413}, nothing},
	} {
		err := change{key: "/demo/k"}.failed(fmt.Errorf("wrapped: %w", c.err))
		if errors.Is(err, dcs.ErrUnknown) != (c.want != nil) || strings.Contains(err.Error(), "not applied") != (c.want == nil) {
			t.Errorf("%v: %v", c.err, err)
		}
		if !strings.HasPrefix(err.Error(), "consul: put /demo/k: ") || !errors.Is(err, c.err) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

// What Consul answers to a transaction that it rolled back.
func TestRollbacks(t *testing.T) {
	for body, want := range map[string]error{
		`{"Errors":[{"OpIndex":0,"What":"key \"demo/k\" exists"}]}`:                                               dcs.ErrConflict,
		`{"Errors":[{"OpIndex":0,"What":"failed index check for key \"demo/k\", current modify index 2 != 1"}]}`:  dcs.ErrConflict,
		`{"Errors":[{"OpIndex":0,"What":"failed to check index, key \"demo/k\" doesn't exist"}]}`:                 dcs.ErrConflict,
		`{"Errors":[{"OpIndex":0,"What":"key \"demo/k\" exists"},{"OpIndex":1,"What":"invalid session \"x\""}]}`:  dcs.ErrLeaseLost,
		`{"Errors":[{"OpIndex":0,"What":"Permission denied: token lacks permission 'key:write' on \"demo/k\""}]}`: errDenied,
		`{"Errors":[{"OpIndex":1,"What":"failed to lock key \"demo/k\" due to lock delay"}]}`:                     errLockDelay,
		`{"Errors":[{"OpIndex":0,"What":"failed kvs lookup: no such table"}]}`:                                    nil,
		`{"Errors":[{"OpIndex":1,"What":"failed to lock key \"demo/k\", lock is already held"}]}`:                 nil,
		`<html>`: nil,
	} {
		got := change{key: "/demo/k"}.rolledBack(api.StatusError{Code: 409, Body: body})
		for _, known := range []error{dcs.ErrConflict, dcs.ErrLeaseLost, errDenied, errLockDelay, dcs.ErrUnknown} {
			if errors.Is(got, known) != errors.Is(want, known) {
				t.Errorf("%s: %v", body, got)
			}
		}
		if got == nil {
			t.Errorf("%s: not rolled back", body)
		}
	}
	for _, err := range []error{nil, errors.New("EOF"), api.StatusError{Code: 500, Body: "x"}} {
		if got := (change{}).rolledBack(err); got != nil {
			t.Errorf("%v: %v", err, got)
		}
	}
}
