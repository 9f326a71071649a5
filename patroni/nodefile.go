package patroni

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// stores are the sections of the configuration stores that Patroni knows.
var stores = []string{"consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"}

// placeholder is the one name that Patroni keeps for itself.
const placeholder = "__patroni_strict_sync_replica_placeholder__"

// Validate refuses what Patroni would refuse, or silently misread, with the field's name.
func (c NodeConfig) Validate() error {
	var errs []error
	need := func(ok bool, field, why string) {
		if !ok {
			errs = append(errs, fmt.Errorf("patroni: NodeConfig.%s %s", field, why))
		}
	}
	need(c.Scope != "", "Scope", "is empty")
	need(!strings.Contains(c.Scope, "/"), "Scope", fmt.Sprintf("%q has a slash; the namespace is a field of its own", c.Scope))
	need(strings.Trim(c.Namespace, "/") != "", "Namespace", fmt.Sprintf("%q is empty; Patroni's own is /service", c.Namespace))
	need(c.Name != "" && !strings.ContainsAny(c.Name, "/,"), "Name", fmt.Sprintf("%q is empty or has a slash or a comma", c.Name))
	need(c.Name != placeholder, "Name", "is reserved by Patroni")

	listens := func(a netip.AddrPort, field string) {
		need(a.IsValid() && a.Port() != 0, field, "is not an address with a port")
	}
	reached := func(a netip.AddrPort, field string) {
		need(a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified(), field, "is not an address that others can connect to")
	}
	listens(c.REST.Listen, "REST.Listen")
	reached(c.REST.ConnectAddress, "REST.ConnectAddress")
	if a := c.REST.Authentication; a != nil {
		need(a.Username != "" && a.Password != "", "REST.Authentication", "has no user name or no password")
	}
	listens(c.Postgres.Listen, "Postgres.Listen")
	reached(c.Postgres.ConnectAddress, "Postgres.ConnectAddress")
	need(path.IsAbs(c.Postgres.DataDir), "Postgres.DataDir", fmt.Sprintf("%q is not an absolute path", c.Postgres.DataDir))
	auth := c.Postgres.Authentication
	need(auth.Superuser.Username != "", "Postgres.Authentication.Superuser.Username", "is empty")
	need(auth.Replication.Username != "", "Postgres.Authentication.Replication.Username", "is empty")
	need(auth.Rewind == nil || auth.Rewind.Username != "", "Postgres.Authentication.Rewind.Username", "is empty")

	c.validateStore(need)
	ours := fields()
	for _, key := range slices.Sorted(maps.Keys(c.Extra)) {
		need(slices.Contains(stores, key) || !slices.Contains(ours, key), "Extra", fmt.Sprintf("has %q, which is a field of its own", key))
	}
	return errors.Join(errs...)
}

// validateStore refuses what is no store, and all but one store.
func (c NodeConfig) validateStore(need func(ok bool, field, why string)) {
	hosts := func(list []string, field string) {
		need(len(list) > 0 && !slices.Contains(list, ""), field, "is empty")
	}
	pair := func(cert, key, field string) {
		need((cert == "") == (key == ""), field, "has a certificate without its key, or a key alone")
	}
	var chosen []string
	if e := c.Consul; e != nil {
		chosen = append(chosen, "Consul")
		need(e.Host != "", "Consul.Host", "is empty")
		need(e.Key == "" || e.Cert != "", "Consul", "has a key without its certificate")
		oneOf := func(value, field string, values ...string) {
			need(value == "" || slices.Contains(values, value), field, fmt.Sprintf("%q is none of %s", value, strings.Join(values, ", ")))
		}
		oneOf(e.Scheme, "Consul.Scheme", "http", "https")
		oneOf(e.Consistency, "Consul.Consistency", "consistent", "default", "stale")
	}
	if e := c.Etcd3; e != nil {
		chosen = append(chosen, "Etcd3")
		hosts(e.Hosts, "Etcd3.Hosts")
		pair(e.Cert, e.Key, "Etcd3")
	}
	if e := c.ZooKeeper; e != nil {
		chosen = append(chosen, "ZooKeeper")
		hosts(e.Hosts, "ZooKeeper.Hosts")
		pair(e.Cert, e.Key, "ZooKeeper")
	}
	for _, key := range stores {
		if _, ok := c.Extra[key]; ok {
			chosen = append(chosen, fmt.Sprintf("Extra[%q]", key))
		}
	}
	switch len(chosen) {
	case 0:
		need(false, "Etcd3", "is nil, and so are Consul and ZooKeeper: a node needs one store, of these or in Extra ("+strings.Join(stores, ", ")+")")
	case 1:
	default:
		need(false, chosen[1], fmt.Sprintf("is one of %d stores (%s): a node needs exactly one", len(chosen), strings.Join(chosen, ", ")))
	}
}

// fields lists the top-level keys that NodeConfig has fields for.
func fields() []string {
	var keys []string
	for f := range reflect.TypeFor[NodeConfig]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	return keys
}

// YAML is the file's content. It holds passwords: write it with mode 0600.
func (c NodeConfig) YAML() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Bootstrap.DCS == nil && !reflect.ValueOf(c.Bootstrap).IsZero() {
		c.Bootstrap.DCS = map[string]any{} // Patroni wants the section
	}
	b, err := yaml.Marshal(c)
	if err != nil || len(c.Extra) == 0 {
		return b, err
	}
	extra, err := yaml.Marshal(c.Extra)
	return append(b, extra...), err
}
