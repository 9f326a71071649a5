package embedded

import (
	"context"

	"google.golang.org/grpc"
)

// streams ends all open streams (watches, lease renewals) at once. Without it a graceful stop of the server waits
// several seconds for clients that have no reason to leave.
type streams struct {
	ctx context.Context // it is the switch itself
	end context.CancelFunc
}

func newStreams() *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{ctx, cancel}
}

func (s *streams) intercept(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return next(srv, stream{ss, ctx})
}

type stream struct {
	grpc.ServerStream
	ctx context.Context // as grpc.ServerStream has it
}

func (s stream) Context() context.Context { return s.ctx }
