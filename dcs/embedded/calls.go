package embedded

import (
	"context"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// calls ends all open calls at once: streams (watches, lease renewals), whose clients have no reason to leave, and what
// waits in vain for a majority. Without it a graceful stop of the server waits several seconds for them.
type calls struct {
	ctx    context.Context // it is the switch itself
	cancel context.CancelFunc

	mu   sync.Mutex
	open int
	none chan struct{} // nil: they have not ended; else closed when none is open
}

func newCalls() *calls {
	ctx, cancel := context.WithCancel(context.Background())
	return &calls{ctx: ctx, cancel: cancel}
}

// end ends them and refuses new ones. none is closed when the last has gone: one whose client does not take what it is
// sent stays until its connection is closed.
func (c *calls) end() (none <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel()
	if c.none == nil {
		c.none = make(chan struct{})
		c.last()
	}
	return c.none
}

func (c *calls) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.none != nil {
		return rpctypes.ErrGRPCStopped
	}
	c.open++
	return nil
}

func (c *calls) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.last()
}

func (c *calls) last() {
	if c.none != nil && c.open == 0 {
		close(c.none)
	}
}

func (c *calls) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.begin(); err != nil {
		return err
	}
	defer c.done()
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	return next(srv, stream{ss, ctx})
}

func (c *calls) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)() //nolint:contextcheck // it waits for the switch, not for the call
	resp, err := next(ctx, req)
	if err != nil && c.ctx.Err() != nil {
		err = rpctypes.ErrGRPCStopped // and not that the client has cancelled it
	}
	return resp, err
}

type stream struct {
	grpc.ServerStream
	ctx context.Context // as grpc.ServerStream has it
}

func (s stream) Context() context.Context { return s.ctx }
