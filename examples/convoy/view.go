package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

func view(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("view", flag.ContinueOnError)
	var w where
	w.flags(f)
	asJSON := f.Bool("json", false, "one JSON object per view")
	watch := f.Bool("watch", false, "show each change until interrupted, and once a second what cannot be confirmed")
	moves := f.Bool("events", false, "the recorded moves of all poolers and why, oldest first; with -watch each new one too")
	if err := parse(f, args); err != nil {
		return err
	}
	c, closed, err := w.find(f)
	if err != nil {
		return err
	}
	defer closed()
	o := observer(c)
	if *moves {
		return events(ctx, o, *watch, *asJSON)
	}
	show := func(v topology.View) error {
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(v)
		}
		_, err := fmt.Println(v)
		return err
	}
	if !*watch {
		v := o.View(ctx)
		if err := show(v); err != nil {
			return err
		}
		return confirmed(v)
	}
	var last shown
	for v, err := range o.Watch(ctx) {
		if err != nil {
			if ctx.Err() != nil {
				return nil // interrupted
			}
			return err
		}
		if !last.news(v) {
			continue
		}
		if err := show(v); err != nil {
			return err
		}
	}
	return nil
}

func confirmed(v topology.View) error {
	if v.Confirmed.IsZero() {
		return fmt.Errorf("the store did not answer: %s", v.Stale)
	}
	return nil
}

// shown is the view that was shown last.
type shown struct {
	text string // without its times
	at   time.Time
}

// news reports whether a view is to be shown: something but its times is another, or it grows old.
func (s *shown) news(v topology.View) bool {
	text := timeless(v)
	if text == s.text && (v.Stale == "" || v.At.Sub(s.at) < 900*time.Millisecond) { // a tick of a second may come early
		return false
	}
	s.text, s.at = text, v.At
	return true
}

func timeless(v topology.View) string {
	var fields any
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		return err.Error() // never: a View is made for it
	}
	var strip func(any)
	strip = func(x any) {
		switch x := x.(type) {
		case map[string]any:
			delete(x, "at")
			delete(x, "confirmed")
			for _, field := range x {
				strip(field)
			}
		case []any:
			for _, field := range x {
				strip(field)
			}
		}
	}
	strip(fields)
	b, _ = json.Marshal(fields)
	return string(b)
}

// events shows each move of a pooler: with follow until ctx ends, else those that the store has a record of, which come
// all at once.
func events(ctx context.Context, o *topology.Observer, follow, asJSON bool) error {
	if !follow {
		if err := confirmed(o.View(ctx)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := func() {
		if !follow {
			cancel()
		}
	}
	idle := time.AfterFunc(2*time.Second, told)
	defer idle.Stop()
	for e, err := range o.Events(ctx) {
		if err != nil {
			if ctx.Err() != nil {
				return nil // interrupted, or told
			}
			return err
		}
		idle.Reset(200 * time.Millisecond)
		if err := showLine(asJSON, e); err != nil {
			return err
		}
	}
	return nil
}

func showLine(asJSON bool, e topology.Event) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(e)
	}
	_, err := fmt.Println(e)
	return err
}

// credentials are those in the address of a REST API.
func credentials(api string) (string, patroni.Secret) {
	u, err := url.Parse(api)
	if err != nil || u.User == nil {
		return "", ""
	}
	password, _ := u.User.Password()
	return u.User.Username(), patroni.Secret(password)
}
