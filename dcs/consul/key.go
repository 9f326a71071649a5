package consul

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// path is Consul's name of a key: it has no slash in front.
func path(key string) string { return key[1:] }

// prefix is what Consul's names of the keys below dir begin with.
func prefix(dir string) string { return path(dcs.Prefix(dir)) }

// entry is a key as Consul has it; ok is false for "service/demo/" and its like, which Consul's user interface makes for
// a folder: no key has that name.
func entry(p *api.KVPair) (e dcs.Entry, ok bool) {
	if p == nil || p.Key == "" || strings.HasSuffix(p.Key, "/") {
		return e, false
	}
	e = dcs.Entry{Key: "/" + p.Key, Value: p.Value, Version: dcs.Version{Created: p.CreateIndex, Modified: p.ModifyIndex}}
	return e, true
}

func checkDir(dir string) error {
	if err := dcs.CheckKey("dir", dir); err != nil {
		return err
	}
	if why := refusedName(prefix(dir)); why != "" {
		return fmt.Errorf("%w: dir %q %s", dcs.ErrInvalid, dir, why)
	}
	return nil
}

// refusedName says why Consul's key endpoint, though not its transactions, refuses a name; "" if it does not.
func refusedName(name string) string {
	if strings.HasPrefix(name, " ") || strings.HasSuffix(name, " ") {
		return "begins or ends with a space, which Consul does not serve"
	}
	if plain, err := url.PathUnescape(name); err == nil && plain != name && (strings.Contains(plain, "..") || strings.Contains(plain, " ")) {
		return "has a space or two dots behind a percent sign, which Consul does not serve"
	}
	return ""
}
