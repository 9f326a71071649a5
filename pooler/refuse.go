package pooler

import (
	"context"
	"time"
)

// refuseLater sees to it that clients to come get an error soon: a refused connection fails the clients that come
// after it, but PgBouncer keeps the one that asked for it.
func (r *route) refuseLater(ctx context.Context) error {
	for _, name := range r.l.Databases {
		if err := r.exec(ctx, "DISABLE", name); err != nil {
			return err
		}
	}
	if len(r.l.Databases) > 0 {
		return nil
	}
	// PgBouncer looks three times a second. The next RELOAD restores what the file says.
	ctx, cancel := context.WithTimeout(ctx, r.l.timeout())
	defer cancel()
	return r.console.Set(ctx, "query_wait_timeout", "0.05")
}

// refuseNow disconnects the clients that are there and would wait.
func (r *route) refuseNow(ctx context.Context) error {
	if len(r.l.Databases) == 0 {
		return r.endWaiting(ctx)
	}
	for _, name := range r.l.Databases {
		if err := r.exec(ctx, "KILL", name); err != nil {
			return err
		}
		r.now.paused = append(r.now.paused, name) // KILL pauses too
	}
	return r.resume(ctx)
}

// endWaiting disconnects the clients that a hold had queued. It is not needed, but faster than query_wait_timeout.
func (r *route) endWaiting(ctx context.Context) error {
	able := versionAtLeast(r.console.Version(), 1, 24)
	for end := time.Now().Add(min(time.Second, r.l.timeout())); ; {
		if err := r.lookActivity(ctx, &r.now); err != nil {
			return err
		}
		if r.now.waiting == 0 || time.Now().After(end) {
			return nil
		}
		if able { // the login that RESUME started for them goes on and fails; later clients of the pool fail with it
			killed, err := r.killClients(ctx, func(c SocketRow) bool { return c.State == "waiting" })
			if err != nil {
				return err
			}
			if killed > 0 {
				continue
			}
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// admit undoes what refusing did to databases of their own. Databases that somebody else disabled are left alone:
// only those that refuse are enabled, before they point elsewhere.
func (r *route) admit(ctx context.Context) error {
	if len(r.l.Databases) == 0 || r.to.Refuses() || !r.before.known || !r.before.target.Refuses() {
		return nil
	}
	for _, d := range r.before.databases {
		if d.Disabled {
			if err := r.exec(ctx, "ENABLE", d.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
