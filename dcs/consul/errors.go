package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"
)

var (
	// errDenied is for refusals that do not come as a status.
	errDenied = errors.New("permission denied")
	// errNotConsul is for a "not found" of somebody else's, which the client takes for absence.
	errNotConsul = errors.New("nothing is found, in an answer without Consul's index: it is from something else; check the way to the agent")
	// errLockDelay: the session that had the key before has ended by force, and Consul lets nobody have the key for a
	// while (that session's LockDelay).
	errLockDelay = errors.New("Consul gives the key to nobody for the lock-delay of the session that lost it")
)

// because adds to the error of a call the reason why its context has ended, where there is one.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// hint says which right is missing, where that is the reason.
func hint(err error, rule, name, policy string) string {
	if !denied(err) {
		return ""
	}
	return fmt.Sprintf("; check the token: it needs %s %q { policy = %q }", rule, name, policy)
}

// denied reports whether the credentials are the reason.
func denied(err error) bool {
	code := status(err)
	return code == http.StatusForbidden || code == http.StatusUnauthorized || errors.Is(err, errDenied)
}

// hopeless reports whether asking again cannot help: the request or the credentials are wrong.
func hopeless(err error) bool { return denied(err) || status(err) == http.StatusBadRequest }

// status is what Consul answered with; 0 if it is not known to have answered.
func status(err error) int {
	e, _ := errors.AsType[api.StatusError](err)
	return e.Code
}

// refused reports whether a write was certainly not carried out: an agent answered and said no, or could not be reached.
// Everything else leaves it open, also most of what an agent answers with status 500: no answer from the leader, a lost
// leadership, a time-out inside the cluster.
func refused(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	e, ok := errors.AsType[api.StatusError](err)
	switch {
	case !ok:
		return false
	case e.Code == http.StatusInternalServerError:
		// Consul's own retries rely on it that nobody says so of a request that was passed on.
		return strings.Contains(e.Body, "No cluster leader") || strings.Contains(e.Body, "invalid key name")
	case e.Code == http.StatusServiceUnavailable:
		return strings.Contains(e.Body, "rate limit exceeded")
	default:
		return e.Code >= 400 && e.Code < 500 && e.Code != http.StatusRequestTimeout
	}
}
