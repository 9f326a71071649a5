package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/pgconvoy/pgconvoy/topology"
)

func switchover(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("switchover", flag.ContinueOnError)
	var w where
	w.flags(f)
	to := f.String("to", "", "the `member` that is to become the primary; default: the best candidate")
	budget := f.Duration("budget", 0, "how long the poolers may take to hold; default: 5s")
	limit := f.Duration("limit", 0, "how long the poolers may hold in all; default: 30s")
	plan := f.Bool("plan", false, "only show what would be done")
	asJSON := f.Bool("json", false, "the plan or the report as a JSON object")
	if err := parse(f, args); err != nil {
		return err
	}
	c, closed, err := w.find(f)
	if err != nil {
		return err
	}
	defer closed()
	op := topology.Switchover{To: *to, Budget: *budget, Limit: *limit}
	if *plan {
		p, err := c.Plan(ctx, op)
		if err != nil {
			return err
		}
		if err := show(*asJSON, p); err != nil {
			return err
		}
		if len(p.Refusals) > 0 {
			return &topology.RefusedError{Refusals: p.Refusals}
		}
		return nil
	}
	report, err := c.Do(ctx, op)
	if perr := show(*asJSON, report); perr != nil && err == nil {
		err = perr
	}
	return err
}

func show(asJSON bool, v fmt.Stringer) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(v)
	}
	_, err := fmt.Print(v)
	return err
}
