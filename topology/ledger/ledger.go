package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience bounds the start and the check.
const patience = 60 * time.Second

// nodePatience bounds the wait for the first node of Load.Direct to accept a
// write, in a service that just did.
const nodePatience = 10 * time.Second

// Ledger is a run of clients, from [Start] until [Ledger.Stop]. Its methods
// may be called from any goroutine.
type Ledger struct {
	load  Load // without Read and Direct: nothing here holds a DSN
	cfg   *pgx.ConnConfig
	run   int64
	base  time.Time // zero of all times
	began time.Duration

	writers []*client
	readers []*client
	probers []*prober

	stop  chan struct{}      // closed: start no further transaction
	kill  context.CancelFunc // ends the clients at once
	rest  context.CancelFunc // ends the probers
	alive sync.WaitGroup     // clients and probers
	done  chan struct{}      // closed when all of them are gone

	mu    sync.Mutex
	marks []mark

	stopping chan struct{} // holds one element while a Stop is at work
	history  *history      // set by the first Stop
}

// Start creates the table, connects every client, and starts the schedule. It
// returns an error, with nothing left behind, if that cannot be done: the
// clients begin with a service that works.
//
// ctx bounds the start only, and 60 s do; the clients run until Stop, which
// must be called.
func Start(ctx context.Context, dsn string, load Load) (*Ledger, error) {
	load = load.withDefaults()
	if err := load.validate(); err != nil {
		return nil, err
	}
	cfg, err := parse("the DSN", dsn)
	if err != nil {
		return nil, err
	}
	readCfg := cfg
	if load.Read != "" {
		if readCfg, err = parse("Load.Read", load.Read); err != nil {
			return nil, err
		}
	}
	l := &Ledger{
		cfg:      cfg,
		run:      rand.Int64N(1 << 48), // short enough for every JSON reader
		base:     time.Now(),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
		stopping: make(chan struct{}, 1),
	}
	first := make(chan struct{}, 1)
	for i, d := range load.Direct {
		p, err := newProber(d, i, l.run, load.Table, l.base, first)
		if err != nil {
			return nil, err
		}
		l.probers = append(l.probers, p)
	}
	load.Read, load.Direct = "", nil
	l.load = load
	for i := range load.Writers {
		l.writers = append(l.writers, l.writer(i))
	}
	for i := range load.Readers {
		l.readers = append(l.readers, l.reader(readCfg, i))
	}

	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	probing, rest := context.WithCancel(life)
	l.kill, l.rest = kill, rest
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.start(ctx, life, probing, first); err != nil {
		kill()
		l.alive.Wait()
		for _, c := range slices.Concat(l.writers, l.readers) {
			c.hangUp(ctx)
		}
		return nil, err
	}
	go func() {
		l.alive.Wait()
		close(l.done)
	}()
	return l, nil
}

// start prepares everything under ctx and starts the goroutines, the clients
// under life and the probers under probing.
func (l *Ledger) start(ctx, life, probing context.Context, first <-chan struct{}) error {
	if err := createTables(ctx, l.cfg, l.load, len(l.probers) > 0); err != nil {
		return fmt.Errorf("ledger: preparing %s: %w", l.load.Table, err)
	}
	for _, p := range l.probers {
		l.alive.Go(func() { p.drive(probing, life) })
	}
	if err := each(ctx, l.writers, (*client).connect); err != nil {
		return fmt.Errorf("ledger: connecting the writers: %w", err)
	}
	if err := each(ctx, l.readers, (*client).rehearse); err != nil {
		return fmt.Errorf("ledger: connecting the readers: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	if err := awaitNode(ctx, first, l.probers); err != nil {
		return err
	}
	l.began = time.Since(l.base)
	for _, clients := range [][]*client{l.writers, l.readers} {
		for i, c := range clients {
			c.track.offset = l.began + c.track.every*time.Duration(i)/time.Duration(len(clients))
			c.live.lastAck.Store(int64(l.began))
			l.alive.Go(func() {
				// One of its own: the timeouts of all clients would queue for one lock.
				ctx, cancel := context.WithCancel(life)
				defer cancel()
				c.drive(ctx, l.stop)
			})
		}
	}
	return nil
}

// each prepares the clients' connections before the schedule begins: twenty
// logins at once would be the longest stall of a quiet run.
func each(ctx context.Context, clients []*client, prepare func(*client, context.Context) error) error {
	const together = 8
	errs := make([]error, len(clients))
	slots := make(chan struct{}, together)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = prepare(c, ctx)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one of them says it; twenty would say the same
		}
	}
	return nil
}

// Counts is how far a run has come: the transactions of the writers, and the
// reads of the readers.
type Counts struct {
	Sent         int `json:"sent"`
	Acknowledged int `json:"acknowledged"`
	Failed       int `json:"failed"`  // all that ended otherwise, the unknown ones among them
	Unknown      int `json:"unknown"` // sent, and lost sight of
	Waiting      int `json:"waiting"` // sent, and not ended yet

	// SinceAck is the time since any writer got its last acknowledgement.
	SinceAck time.Duration `json:"since_ack_ns"`

	ReadsAnswered int `json:"reads_answered"`
	ReadsFailed   int `json:"reads_failed"`
}

// Now returns the counts of this moment. It reads a few counters of each
// client and disturbs none, so it may be called many times a second.
func (l *Ledger) Now() Counts {
	var n Counts
	var last int64
	for _, c := range l.writers {
		// Ends before starts: a transaction between the two reads is waiting.
		n.Unknown += int(c.live.unknown.Load())
		n.Failed += int(c.live.failed.Load())
		n.Acknowledged += int(c.live.acknowledged.Load())
		n.Sent += int(c.live.sent.Load())
		last = max(last, c.live.lastAck.Load())
	}
	n.Waiting = min(n.Sent-n.Acknowledged-n.Failed, l.load.Writers)
	n.SinceAck = max(time.Since(l.base)-time.Duration(last), 0)
	for _, c := range l.readers {
		n.ReadsAnswered += int(c.live.acknowledged.Load())
		n.ReadsFailed += int(c.live.failed.Load())
	}
	return n
}

// Stop ends the clients, reads every row back through the DSN of Start, and
// returns the report. No transaction is started any more; those under way
// finish, or are cut off (outcome unknown) after Load.Timeout or half of the
// time that ctx leaves, whichever comes first. The rest is for the check,
// which is repeated while the server is out of reach, for 60 s at most.
//
// When Stop returns, every goroutine and connection of the ledger is gone,
// whatever the error. An error means that the rows could not be read in time:
// the report is whole except for what only the rows can tell (Report.Checked
// says which), and Checked is false. Stop may then be called again to repeat
// the check; after a success it returns the same report again, with the marks
// and notes that were added since.
func (l *Ledger) Stop(ctx context.Context) (Report, error) {
	if err := l.enter(ctx); err != nil {
		return Report{}, err
	}
	defer func() { <-l.stopping }()
	if l.history == nil {
		at := time.Since(l.base)
		l.end(ctx)
		l.history = l.collect(at)
	}
	h := l.history
	var err error
	if !h.checked {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err = check(ctx, l.cfg, l.run, l.load.Table, h); err != nil {
			l.history = h.clone() // for the next check; this one belongs to the report
			err = fmt.Errorf("ledger: reading %s back: %w", l.load.Table, err)
		}
	}
	return newReport(h, l.load.Table, l.run, l.marked()), err
}

// enter admits one Stop at a time.
func (l *Ledger) enter(ctx context.Context) error {
	select {
	case l.stopping <- struct{}{}:
		return nil // also with a ctx that has ended: the goroutines must go
	default:
	}
	select {
	case l.stopping <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ledger: another Stop is at work: %w", context.Cause(ctx))
	}
}

// end stops the clients and waits for all goroutines.
func (l *Ledger) end(ctx context.Context) {
	close(l.stop)
	l.rest()
	grace := l.load.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline)/2)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	l.kill()
	<-l.done
}

// collect puts the records together. All goroutines have ended.
func (l *Ledger) collect(stopped time.Duration) *history {
	h := &history{base: l.base, began: l.began, stopped: stopped, measured: len(l.probers) > 0}
	for _, c := range l.writers {
		h.writers = append(h.writers, c.track)
	}
	for _, c := range l.readers {
		h.readers = append(h.readers, c.track)
	}
	for _, p := range l.probers {
		h.direct = append(h.direct, p.acks...)
	}
	slices.Sort(h.direct)
	h.moves = h.firstAnswers()
	return h
}
