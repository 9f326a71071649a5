package embedded

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// calls ends all open calls at once: streams (watches, lease renewals), whose clients have no reason to leave, and what
// waits in vain for a majority. Without it a graceful stop of the server waits several seconds for them.
type calls struct {
	ctx context.Context // it is the switch itself
	end context.CancelFunc
}

func newCalls() *calls {
	ctx, cancel := context.WithCancel(context.Background())
	return &calls{ctx, cancel}
}

func (c *calls) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	return next(srv, stream{ss, ctx})
}

func (c *calls) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
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
