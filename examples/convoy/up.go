package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// up runs a stack until ctx ends.
func up(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("up", flag.ContinueOnError)
	file := f.String("spec", "", "`file` with a topology.Spec as YAML or JSON; default: three nodes, three write and two read poolers")
	dir := f.String("dir", "", "`folder` for data and logs, kept for the next run; default: a temporary one, removed at the end")
	ready := f.String("ready-file", "", "`file` to write one JSON object to when all is routed: DSNs, addresses, process ids")
	store := f.String("dcs", "embedded", "configuration `store`: embedded (an etcd of the stack's own), etcd (yours), consul or zookeeper (yours, or without -dcs-endpoints the stack's own)")
	endpoints := f.String("dcs-endpoints", "", "comma-separated `addresses` of your store")
	nodes := f.Int("nodes", 0, "`number` of database nodes; default: the spec's, or 3")
	poolers := f.Int("poolers", 0, "`number` of write poolers; default: the spec's, or 3")
	if err := parse(f, args); err != nil {
		return err
	}
	switch *store {
	case "etcd":
		if *endpoints == "" {
			return misuse(f, "-dcs etcd is an etcd of yours: say where with -dcs-endpoints")
		}
	case "embedded":
		if *endpoints != "" {
			return misuse(f, "-dcs embedded is the stack's own: with -dcs-endpoints it is etcd, consul or zookeeper")
		}
	case "consul", "zookeeper":
	default:
		return misuse(f, "-dcs %q is not known; it is embedded, etcd, consul or zookeeper", *store)
	}
	if *nodes < 0 || *nodes > 50 || *poolers < 0 || *poolers > 50 {
		return misuse(f, "-nodes and -poolers are from 1 to 50")
	}
	spec, err := readSpec(*file)
	if err != nil {
		return err
	}
	if *nodes > 0 {
		spec.Nodes = topology.NodesNamed(*nodes)
	}
	if *poolers > 0 {
		spec.Poolers = topology.PoolersNamed(*poolers, 2)
	}

	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.2f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	r := local.Runner{Dir: *dir, DCS: local.DCS{Kind: *store}, Progress: func(what string) { say("waiting for %s", what) }}
	if *endpoints != "" {
		r.DCS.Endpoints = strings.Split(*endpoints, ",")
	}
	err = r.Run(ctx, spec, func(ctx context.Context, s *local.Stack) error {
		paths := []string{filepath.Join(s.Dir(), readyName)}
		if *ready != "" {
			paths = append(paths, *ready)
		}
		for _, p := range paths {
			if err := s.WriteReadyFile(ctx, p); err != nil {
				return err
			}
		}
		forget, err := remember(s.Dir())
		if err != nil {
			return err
		}
		defer forget()
		say("ready: all routed; addresses and passwords are in %s", paths[len(paths)-1])
		<-ctx.Done()
		return context.Cause(ctx)
	})
	for _, p := range []string{*ready, filepath.Join(*dir, readyName)} {
		if p == *ready && p != "" || *dir != "" {
			_ = os.Remove(p) // it told of a stack that is gone
		}
	}
	if errors.Is(err, context.Canceled) {
		say("everything is stopped")
		return nil
	}
	return err
}

// readSpec reads a spec strictly: a field that is not known is an error that names it.
func readSpec(file string) (topology.Spec, error) {
	var spec topology.Spec
	if file == "" {
		return spec, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return spec, err
	}
	if err := yaml.UnmarshalStrict(b, &spec); err != nil {
		return spec, fmt.Errorf("spec %s: %w", file, err)
	}
	return spec, nil
}
