package patroni

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Source tells who leads a Patroni cluster, and proves it.
//
// A leader is Writable only after: a linearizable read of the leader key begun after the last doubt; an SQL answer,
// asked after that read, that the holder is not in recovery; and a second read that shows the same acquisition. A
// doubt is a lost or negative probe, another holder, another acquisition, or another timeline. Trouble with the store
// alone is no doubt: the last proof stands and Stale says so.
type Source struct {
	Store  dcs.Reader
	Path   string
	Prober Prober // nil: nothing is ever Writable

	Replicas bool // also look at the replicas, for a read service

	// Resolve turns a member's host name into an address. nil: only literal addresses are understood. It is called
	// in the watch's own goroutine and must be quick.
	Resolve func(ctx context.Context, host string) (netip.Addr, error)
}

// Watch follows the leadership. Each range proves anew. A non-nil error is the last pair: a bad path, refused
// credentials, or the end of ctx.
func (s *Source) Watch(ctx context.Context) iter.Seq2[Leadership, error] {
	return func(yield func(Leadership, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		w := &sourceWatch{
			Source: s, reads: make(chan readDone), standbyProofs: make(chan standbyProof),
			known: map[string]Member{}, standbys: map[string]*standby{},
		}
		clusters, wait := dcs.Latest(Watch(ctx, s.Store, s.Path))
		defer func() {
			cancel()
			_ = wait() // the reason was yielded, or the consumer left
			w.running.Wait()
		}()
		w.run(ctx, clusters, wait, yield)
	}
}

// repeat is how often an unchanged level is given again, so that a consumer sees its age.
const repeat = 250 * time.Millisecond

// sourceWatch is one Watch. Only run's goroutine touches it.
type sourceWatch struct {
	*Source
	running sync.WaitGroup

	cluster Cluster
	known   map[string]Member // last known members: a key that is away for a moment takes nothing with it

	holder  string // the last holder of the key
	created uint64
	addr    netip.AddrPort // where it is asked
	stop    context.CancelFunc
	probe   <-chan Proof

	proof   Proof
	proven  bool
	doubted time.Time // when the last doubt arose; what began before it proves nothing
	since   time.Time // when the first read of the proof began
	epoch   Epoch
	first   time.Time // when the first read after the doubt was answered; zero: not yet
	began   time.Time // when it had begun
	reading bool
	reads   chan readDone
	again   <-chan time.Time // time to read again after a failure

	standbys      map[string]*standby
	standbyProofs chan standbyProof
}

type readDone struct {
	began   time.Time
	second  bool
	proof   Proof // what a second read confirms
	cluster Cluster
	err     error
}

func (w *sourceWatch) run(ctx context.Context, clusters <-chan Cluster, wait func() error, yield func(Leadership, error) bool) {
	defer w.stopAll()
	var last Leadership
	var at time.Time
	tick := time.NewTicker(repeat)
	defer tick.Stop()
	for {
		select {
		case c, ok := <-clusters:
			if !ok {
				err := wait()
				if err == nil {
					err = context.Cause(ctx)
				}
				yield(w.level(), err)
				return
			}
			w.sawCluster(ctx, c)
		case p, ok := <-w.probe:
			if !ok {
				w.probe = nil
				continue
			}
			w.sawProof(ctx, p)
		case r := <-w.reads:
			w.reading = false
			w.sawRead(ctx, r)
		case <-w.again:
			w.again = nil
			w.read(ctx, false, Proof{})
		case p := <-w.standbyProofs:
			if st := w.standbys[p.name]; st != nil && st.addr == p.addr {
				st.proof = p.proof
			}
		case <-tick.C:
		}
		l := w.level()
		if time.Since(at) < repeat && same(l, last) {
			continue
		}
		last, at = l, time.Now()
		if !yield(l, nil) {
			return
		}
	}
}

func (w *sourceWatch) sawCluster(ctx context.Context, c Cluster) {
	w.cluster = c
	for _, m := range c.Members {
		w.known[m.Name] = m
	}
	if c.Leader != "" {
		addr := w.resolve(ctx, w.known[c.Leader].Host)
		switch {
		case c.Leader != w.holder || addr != w.addr:
			w.holder, w.created, w.addr = c.Leader, c.LeaderVersion.Created, addr
			w.doubt(ctx)
			w.startProbe(ctx)
		case c.LeaderVersion.Created != w.created:
			w.created = c.LeaderVersion.Created
			w.doubt(ctx)
		}
	}
	if w.Replicas {
		w.followStandbys(ctx)
	}
}

// doubt withdraws the proof and begins a new one.
func (w *sourceWatch) doubt(ctx context.Context) {
	w.proven, w.first, w.doubted = false, time.Time{}, time.Now()
	w.read(ctx, false, Proof{})
}

func (w *sourceWatch) sawProof(ctx context.Context, p Proof) {
	w.proof = p
	switch {
	case w.proven && (!p.Writable || p.Timeline != w.epoch.Timeline || p.SystemID != w.epoch.SystemID):
		w.doubt(ctx)
	case !w.proven && p.Writable && !w.first.IsZero() && p.At.After(w.first):
		w.read(ctx, true, p)
	}
}

// sawRead takes the answer of a linearizable read of the leader key.
func (w *sourceWatch) sawRead(ctx context.Context, r readDone) {
	current := r.cluster.Leader == w.holder && r.cluster.LeaderVersion.Created == w.created
	switch {
	case w.proven:
	case r.began.Before(w.doubted):
		w.read(ctx, false, Proof{})
	case r.err != nil:
		w.again = time.After(200 * time.Millisecond)
	case !current: // the watch will soon bring what the read saw
		w.again = time.After(10 * time.Millisecond)
	case r.second && !w.first.IsZero() && w.proof.Writable && w.proof.Timeline == r.proof.Timeline:
		w.proven, w.since = true, w.began
		w.epoch = Epoch{SystemID: r.proof.SystemID, Timeline: r.proof.Timeline, Created: w.created}
	default:
		w.first, w.began = time.Now(), r.began
		if w.proof.Writable { // asked before this read: ask again now, not at the prober's next turn
			w.startProbe(ctx)
		}
	}
}

func (w *sourceWatch) read(ctx context.Context, second bool, p Proof) {
	if w.reading || w.Prober == nil {
		return // sawRead asks again if the one under way began too early
	}
	w.reading, w.again = true, nil
	w.running.Go(func() {
		r := readDone{began: time.Now(), second: second, proof: p}
		rctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		r.cluster, r.err = Get(rctx, w.Store, w.Path)
		select {
		case w.reads <- r:
		case <-ctx.Done():
		}
	})
}

func (w *sourceWatch) startProbe(ctx context.Context) {
	if w.stop != nil {
		w.stop()
		w.stop, w.probe = nil, nil
	}
	w.proof = Proof{}
	if w.Prober == nil || !w.addr.IsValid() {
		return
	}
	pctx, stop := context.WithCancel(ctx)
	c, wait := latest(pctx, w.Prober, w.addr)
	w.running.Go(func() { _ = wait() })
	w.stop, w.probe = stop, c
}

// latest offers the newest proof of one server.
func latest(ctx context.Context, p Prober, addr netip.AddrPort) (<-chan Proof, func() error) {
	return dcs.Latest(func(yield func(Proof, error) bool) {
		for proof := range p.Probe(ctx, addr) {
			if !yield(proof, nil) {
				return
			}
		}
	})
}

func (w *sourceWatch) stopAll() {
	if w.stop != nil {
		w.stop()
	}
	for _, s := range w.standbys {
		s.stop()
	}
}

// level is the present leadership.
func (w *sourceWatch) level() Leadership {
	c := w.cluster
	l := Leadership{
		Member: c.Leader, Addr: w.route(), Epoch: w.epoch, Proof: w.proof, API: w.known[w.holder].API,
		Paused: c.Config.Paused, TTL: c.Config.TTL, At: c.At, Stale: c.Stale,
	}
	switch {
	case !c.Known():
		l.Phase, l.Reason = Unknown, "the store has not answered yet"
		if c.Stale != nil {
			l.Reason = c.Stale.Error()
		}
	case c.Leader == "":
		l.Phase, l.Reason = Vacant, "nobody holds the leader key"
	case w.proven:
		l.Phase, l.At, l.Reason = Writable, w.since, "proven"
	case w.Prober == nil:
		l.Phase, l.Reason = Elected, "no prober: a writable primary is never proven"
	case !w.addr.IsValid():
		l.Phase, l.Reason = Elected, fmt.Sprintf("the address of %s is not known", c.Leader)
	case w.proof.At.IsZero():
		l.Phase, l.Reason = Elected, c.Leader+" was not asked yet"
	case w.proof.Err != nil:
		l.Phase, l.Reason = Elected, w.proof.Err.Error()
	case !w.proof.Writable:
		l.Phase, l.Reason = Promoting, c.Leader+" is in recovery"
	default:
		l.Phase, l.Reason = Promoting, c.Leader+" is writable; the leader key is read once more"
	}
	if w.Replicas {
		l.Replicas = w.replicas()
	}
	return l
}

// route is where poolers reach the holder.
func (w *sourceWatch) route() netip.AddrPort {
	if proxy, ok := literal(w.known[w.holder].Proxy); ok {
		return proxy
	}
	return w.addr
}

func (w *sourceWatch) resolve(ctx context.Context, hostport string) netip.AddrPort {
	if a, ok := literal(hostport); ok {
		return a
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || w.Resolve == nil {
		return netip.AddrPort{}
	}
	ip, err := w.Resolve(ctx, host)
	if err != nil {
		return netip.AddrPort{}
	}
	a, _ := literal(net.JoinHostPort(ip.String(), port))
	return a
}

// same reports whether two levels differ in nothing but their age.
func same(a, b Leadership) bool {
	if len(a.Replicas) != len(b.Replicas) || (a.Stale == nil) != (b.Stale == nil) {
		return false
	}
	for i, r := range a.Replicas {
		o := b.Replicas[i]
		if r.Member != o.Member || r.Addr != o.Addr || r.Fresh != o.Fresh {
			return false
		}
	}
	return a.Phase == b.Phase && a.Member == b.Member && a.Addr == b.Addr && a.Epoch == b.Epoch && a.API == b.API &&
		a.Proof.Writable == b.Proof.Writable && (a.Proof.Err == nil) == (b.Proof.Err == nil) &&
		a.Paused == b.Paused && a.TTL == b.TTL && a.Reason == b.Reason
}
