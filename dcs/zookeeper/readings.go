package zookeeper

import "context"

// readings are those that a watch has asked for: of one spot one at a time, so that their answers are in order, and a
// bounded number in all.
type readings struct {
	ctx     context.Context // ends when they are given up
	stop    context.CancelFunc
	round   int  // grows when they are given up
	open    bool // this round has had its sync: they may begin
	jobs    map[spot]*job
	queue   []spot
	running int // also those that were given up
	marked  int // those that belong to the reading of everything
	results chan result
}

type job struct {
	running bool
	marked  bool
	// It is wanted again, since something may have happened after it began.
	again, markedAgain bool
}

// result is the outcome of a reading, or of the sync before all.
type result struct {
	armed
	at      spot
	round   int
	synced  bool
	session int64
	err     error
}

// want asks for a reading that begins after now.
func (r *readings) want(at spot, marked bool) {
	j := r.jobs[at]
	switch {
	case j == nil:
		j = &job{}
		r.jobs[at] = j
		r.queue = append(r.queue, at)
		fallthrough
	case !j.running:
		if marked && !j.marked {
			j.marked = true
			r.marked++
		}
	default:
		j.again = true
		if marked && !j.markedAgain {
			j.markedAgain = true
			r.marked++
		}
	}
}

// start begins as many as there is room for.
func (r *readings) start(read func(spot)) {
	for r.open && len(r.queue) > 0 && r.running < maxReads {
		at := r.queue[0]
		r.queue = r.queue[1:]
		r.jobs[at].running = true
		r.running++
		read(at)
	}
}

// done takes one that has come back, and reports whether it was marked.
func (r *readings) done(at spot) (marked bool) {
	j := r.jobs[at]
	marked = j.marked
	if marked {
		r.marked--
	}
	delete(r.jobs, at)
	if j.again {
		r.jobs[at] = &job{marked: j.markedAgain}
		r.queue = append(r.queue, at)
	}
	return marked
}
