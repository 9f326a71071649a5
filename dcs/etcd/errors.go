package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// writeError says of a failed write whether it may have been applied.
func (s *Store) writeError(op, key string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("etcd: %s %s: not applied: %w: %w", op, key, dcs.ErrLeaseLost, err)
	case refused(err):
		return fmt.Errorf("etcd: %s %s: not applied: %w", op, key, err)
	default:
		return fmt.Errorf("etcd: %s %s: %w: %w%s", op, key, dcs.ErrUnknown, err, s.connection())
	}
}

// because adds to the error of a call the reason why its context has ended, where there is one.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// refused reports whether a server answered and said no. Everything else leaves the outcome of a write open: no
// answer, a lost connection, a lost leader, a time-out inside the cluster.
func refused(err error) bool {
	switch code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}

// hopeless reports whether asking again cannot help: the request or the credentials are wrong.
func hopeless(err error) bool {
	if errors.Is(err, rpctypes.ErrAuthOldRevision) {
		return false // permissions were changed while the request was under way
	}
	switch code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated:
		return true
	default:
		return false
	}
}

// code is the gRPC code of an error of the client, whichever of its two forms it has.
func code(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}

// connection is a remark on the state of the connection where that explains an error: when no server can be reached
// the client waits in silence, and the error is but a deadline.
func (s *Store) connection() string {
	conn := s.client.ActiveConnection()
	if conn == nil {
		return ""
	}
	if state := conn.GetState(); state != connectivity.Ready {
		return fmt.Sprintf(" (no connection to %v: %v)", s.client.Endpoints(), state)
	}
	return ""
}

// redial ends gRPC's wait before its next attempt to connect, which grows to two minutes during an outage.
func (s *Store) redial() {
	if conn := s.client.ActiveConnection(); conn != nil {
		conn.ResetConnectBackoff()
	}
}
