package etcd_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// To revoke a lease takes the right to write each of its keys, and no more.
func TestRevokeNeedsItsRights(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	c, ctx := s.Client(), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	allow := func(user, key string, p clientv3.PermissionType) {
		t.Helper()
		must(c.RoleGrantPermission(ctx, user, key, "", p))
	}
	must(c.UserAdd(ctx, "root", "secret"))
	must(c.UserGrantRole(ctx, "root", "root"))
	for _, user := range []string{"reader", "half", "whole"} {
		must(c.RoleAdd(ctx, user))
		must(c.UserAdd(ctx, user, "secret"))
		must(c.UserGrantRole(ctx, user, user))
	}
	allow("reader", dir+"/leader", clientv3.PermissionType(clientv3.PermRead))
	allow("half", dir+"/leader", clientv3.PermissionType(clientv3.PermReadWrite))
	allow("whole", dir+"/leader", clientv3.PermissionType(clientv3.PermReadWrite))
	allow("whole", dir+"/member", clientv3.PermissionType(clientv3.PermWrite))
	must(c.AuthEnable(ctx))
	as := func(user string) *etcd.Store {
		return connect(t, []netip.AddrPort{address(s)}, func(c *clientv3.Config) { c.Username, c.Password = user, "secret" })
	}
	root := as("root")
	err := root.Lease(ctx, func(_ context.Context, w dcs.Writer) error {
		v := storetest.Put(t, w, "leader", "n1", dcs.Version{})
		storetest.Put(t, w, "member", "n1", dcs.Version{})
		for _, user := range []string{"reader", "half"} {
			err := as(user).Revoke(ctx, dir+"/leader", []byte("n1"), v)
			if err == nil || errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) || !strings.Contains(err.Error(), "not applied") {
				t.Errorf("%s: %v", user, err)
			}
		}
		if snap, err := root.Get(ctx, dir); err != nil || storetest.Content(snap) != "leader=n1 member=n1" {
			t.Errorf("content is %v, %v", storetest.Content(snap), err)
		}
		if err := as("whole").Revoke(ctx, dir+"/leader", []byte("n1"), v); err != nil {
			t.Errorf("with all rights: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err) // nothing is said when a lease that was lost is given back
	}
	if snap, err := root.Get(ctx, dir); err != nil || storetest.Content(snap) != "" {
		t.Errorf("content is %v, %v", storetest.Content(snap), err)
	}
}
