package etcd

import "time"

// passed reports whether at is set and not in the future.
func passed(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// earliest of the moments that are set; an hour from now if none is.
func earliest(moments ...time.Time) time.Time {
	first := time.Now().Add(time.Hour)
	for _, at := range moments {
		if !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}
