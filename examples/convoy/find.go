package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// readyName is the ready file that each stack has in its folder.
const readyName = "ready.json"

// where says which stack a command is for.
type where struct {
	dir, dcs, endpoints, path string
}

func (w *where) flags(f *flag.FlagSet) {
	f.StringVar(&w.dir, "dir", "", "`folder` of the stack; default: the only one that runs on this machine")
	f.StringVar(&w.dcs, "dcs", "", "configuration `store` of a stack elsewhere: etcd, consul or zookeeper")
	f.StringVar(&w.endpoints, "dcs-endpoints", "", "comma-separated `addresses` of the store")
	f.StringVar(&w.path, "path", "", "Patroni's namespace and scope, such as `/service/demo`; with -dcs")
}

// monitorDSN is the environment variable that says how to ask the databases of a stack elsewhere.
const monitorDSN = "PGCONVOY_MONITOR_DSN"

// find opens the stack's store. For a stack elsewhere the databases are asked with PGCONVOY_MONITOR_DSN and the PG*
// environment, and Patroni's REST API with PATRONI_RESTAPI_USERNAME and PATRONI_RESTAPI_PASSWORD. close must be called.
func (w *where) find(f *flag.FlagSet) (c *topology.Coordinator, closed func(), err error) {
	if w.dcs != "" || w.endpoints != "" || w.path != "" {
		known := slices.Contains([]string{"etcd", "consul", "zookeeper"}, w.dcs)
		if !known || w.endpoints == "" || w.path == "" || w.dir != "" {
			return nil, nil, misuse(f, "a stack elsewhere needs -dcs (etcd, consul or zookeeper), -dcs-endpoints and -path, without -dir")
		}
		client := &patroni.Client{
			Username: os.Getenv("PATRONI_RESTAPI_USERNAME"), Password: patroni.Secret(os.Getenv("PATRONI_RESTAPI_PASSWORD")),
		}
		store, closed, err := local.DCS{Kind: w.dcs, Endpoints: strings.Split(w.endpoints, ",")}.Open()
		if err != nil {
			return nil, nil, misuse(f, "-dcs-endpoints: %v", err)
		}
		return coordinate(store, closed, w.path, os.Getenv(monitorDSN), "$"+monitorDSN, client)
	}
	dir := w.dir
	if dir == "" {
		if dir, err = onlyStack(); err != nil {
			return nil, nil, err
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, readyName))
	if err != nil {
		return nil, nil, fmt.Errorf("no stack runs in %s: %w", dir, err)
	}
	var info local.Info
	if err := json.Unmarshal(b, &info); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, readyName), err)
	}
	client := &patroni.Client{}
	for _, api := range info.Patroni { // all have the same credentials
		client.Username, client.Password = credentials(api)
	}
	return open(info.DCS, info.Path, info.SuperuserDSN, client)
}

func open(d local.DCS, path, dsn string, client *patroni.Client) (*topology.Coordinator, func(), error) {
	store, closed, err := d.Open()
	if err != nil {
		return nil, nil, err
	}
	return coordinate(store, closed, path, dsn, "the stack's own DSN", client)
}

// coordinate closes the store itself when it fails. from says where the DSN is from.
func coordinate(
	store dcs.Store, closed func(), path, dsn, from string, client *patroni.Client,
) (*topology.Coordinator, func(), error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil { // its words may hold a password
		closed()
		return nil, nil, fmt.Errorf("%s, or what the PG* environment adds to it, cannot be parsed", from)
	}
	c := &topology.Coordinator{
		Cluster: topology.Cluster{Path: path, Store: store, Prober: &patroni.SQL{Connect: patroni.Connector(config)}},
		Patroni: client,
	}
	return c, closed, nil
}

// observer reads the stack of a coordinator.
func observer(c *topology.Coordinator) *topology.Observer {
	return &topology.Observer{
		Path: c.Path, Store: c.Store,
		Leaders: &patroni.Source{Store: c.Store, Path: c.Path, Prober: c.Prober, Replicas: true, Client: c.Patroni},
	}
}

// registry is the folder with one file per stack that runs on this machine, named by the process that runs it.
func registry() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("pgconvoy-stacks-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	st, err := os.Lstat(dir) // others may write to the folder above
	if err != nil {
		return "", err
	}
	if !st.IsDir() || st.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a folder of mode 0700", dir)
	}
	return dir, nil
}

// remember makes this process's stack known to the other commands.
func remember(dir string) (forget func(), err error) {
	r, err := registry()
	if err != nil {
		return nil, err
	}
	name := filepath.Join(r, strconv.Itoa(os.Getpid()))
	return func() { _ = os.Remove(name) }, os.WriteFile(name, []byte(dir), 0o600)
}

func onlyStack() (string, error) {
	r, err := registry()
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(r)
	if err != nil {
		return "", err
	}
	var dirs []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || syscall.Kill(pid, 0) != nil {
			continue // of a process that was killed
		}
		if b, err := os.ReadFile(filepath.Join(r, e.Name())); err == nil {
			dirs = append(dirs, string(b))
		}
	}
	switch len(dirs) {
	case 0:
		return "", errors.New("no stack runs on this machine; start one with convoy up, or name another with -dcs, -dcs-endpoints and -path")
	case 1:
		return dirs[0], nil
	}
	return "", fmt.Errorf("%d stacks run on this machine; name one with -dir: %s", len(dirs), strings.Join(dirs, ", "))
}
