package etcd

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// stream is one gRPC stream of events. It has a watcher of its own instead of the client's shared one: so a stream
// that hangs can be replaced, asking for progress concerns nobody else, and close leaves nothing behind.
type stream struct {
	ctx     context.Context // progress has to be asked for with the context of the watch
	cancel  context.CancelFunc
	watcher clientv3.Watcher
	opener  sync.WaitGroup
	opened  chan clientv3.WatchChan // receives the channel of events once; room for one
	events  clientv3.WatchChan      // nil until opened
}

// open begins to open a stream of the changes below prefix from revision on.
func (s *Store) open(ctx context.Context, prefix string, revision int64) *stream {
	// Without a leader the stream ends with an error instead of keeping silent.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	st := &stream{
		ctx:     ctx,
		cancel:  cancel,
		watcher: clientv3.NewWatcher(s.client),
		opened:  make(chan clientv3.WatchChan, 1),
	}
	st.opener.Go(func() { // Watch blocks until a server has answered
		st.opened <- st.watcher.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision),
			clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	})
	return st
}

// progress asks the server to say up to which revision it has sent everything. The answer is an event.
func (st *stream) progress(ctx context.Context) {
	pctx, cancel := context.WithCancel(st.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	_ = st.watcher.RequestProgress(pctx) //nolint:contextcheck // the watcher finds its stream by the stream's context; silence is noticed
}

// close returns when nothing of the stream is left.
func (st *stream) close() {
	st.cancel()
	_ = st.watcher.Close() // what it had to say came as an event
	st.opener.Wait()
}
