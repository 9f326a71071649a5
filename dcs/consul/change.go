package consul

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// change is what is to become of one key.
type change struct {
	key     string
	value   []byte
	prev    dcs.Version
	remove  bool
	session string // that is to own the key; empty: whoever owns it
	flags   uint64 // a random number, so that the write changes something, and is known by it
}

// maxTransaction is what an agent takes in one request (limits.txn_max_req_len), less the room for all but the value.
const maxTransaction = 512<<10 - 16<<10

// large reports whether the value does not fit into a transaction, where it is encoded.
func (c change) large() bool { return base64.StdEncoding.EncodedLen(len(c.value)) > maxTransaction }

// check refuses what no request can carry out.
func (c change) check(ctx context.Context) error {
	if err := dcs.CheckKey("key", c.key); err != nil {
		return err
	}
	if err := dcs.CheckValue(c.key, c.value); err != nil {
		return err
	}
	if c.large() {
		if why := refusedName(path(c.key)); why != "" {
			return fmt.Errorf("%w: key %q %s for values of %d bytes", dcs.ErrInvalid, c.key, why, len(c.value))
		}
		if c.session != "" {
			return fmt.Errorf("%w: value of %s has %d bytes, more than the %d that Consul takes for a key of a lease",
				dcs.ErrInvalid, c.key, len(c.value), base64.StdEncoding.DecodedLen(maxTransaction))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return c.refused(err)
	}
	return nil
}

// ops is the transaction. A session's key goes to another session only by way of a removal; the transaction as a whole
// leaves it a new key. owner is the session that has the key at version prev.
func (c change) ops(owner string) api.TxnOps {
	op := func(verb api.KVOp) *api.TxnOp {
		kv := &api.KVTxnOp{Verb: verb, Key: path(c.key)}
		switch verb {
		case api.KVCheckIndex, api.KVDeleteCAS:
			kv.Index = c.prev.Modified
		case api.KVSet: // the owner stays
			kv.Value, kv.Flags = c.value, c.flags
		case api.KVLock:
			kv.Value, kv.Flags, kv.Session = c.value, c.flags, c.session
		}
		return &api.TxnOp{KV: kv}
	}
	ops := api.TxnOps{op(api.KVCheckIndex)} // delete-cas alone is content with a key that is absent
	if c.prev == (dcs.Version{}) {
		ops[0] = op(api.KVCheckNotExists)
	}
	switch {
	case c.remove:
		return append(ops, op(api.KVDeleteCAS))
	case c.session == "":
		return append(ops, op(api.KVSet))
	case owner != "" && owner != c.session:
		return append(ops, op(api.KVDeleteCAS), op(api.KVLock))
	default:
		return append(ops, op(api.KVLock))
	}
}

// written is the version that a put has made, by the answer to its transaction.
func (c change) written(results api.TxnResults) (dcs.Version, error) {
	if len(results) > 0 && results[len(results)-1] != nil {
		p := results[len(results)-1].KV
		if p != nil && p.Key == path(c.key) && p.Flags == c.flags && p.CreateIndex > 0 && p.ModifyIndex >= p.CreateIndex {
			return dcs.Version{Created: p.CreateIndex, Modified: p.ModifyIndex}, nil
		}
	}
	return dcs.Version{}, errors.New("it was applied, but the answer does not say at which version")
}

// rolledBack is the reason why a transaction was rolled back, by the error of its request; nil: that is not what the
// error says.
func (c change) rolledBack(err error) error {
	e, ok := errors.AsType[api.StatusError](err)
	if !ok || e.Code != http.StatusConflict {
		return nil
	}
	var resp api.TxnResponse
	_ = json.Unmarshal([]byte(e.Body), &resp) // what it does not say is not known
	var why error
	for _, e := range resp.Errors {
		if e == nil {
			continue
		}
		var reason error
		switch {
		case strings.Contains(e.What, "invalid session"):
			return fmt.Errorf("%w: %s", dcs.ErrLeaseLost, e.What) // it took its keys along, so others fail, too
		case strings.Contains(e.What, "Permission denied"):
			reason = errDenied
		case strings.Contains(e.What, "due to lock delay"):
			reason = errLockDelay
		case e.OpIndex == 0 && strings.Contains(e.What, "key"): // the comparison
			reason = dcs.ErrConflict
		default:
			reason = errors.New("rolled back")
		}
		if why == nil {
			why = fmt.Errorf("%w: %s", reason, e.What)
		}
	}
	if why == nil {
		why = fmt.Errorf("rolled back: %w", err)
	}
	return why
}

func (c change) op() string {
	if c.remove {
		return "delete"
	}
	return "put"
}

// refused is the error of a change that was certainly not made.
func (c change) refused(err error) error {
	return fmt.Errorf("consul: %s %s: not applied: %w%s", c.op(), c.key, err, hint(err, "key", path(c.key), "write"))
}

// failed is the error of a change that was sent.
func (c change) failed(err error) error {
	if refused(err) || mutant.Is("law7-a-silent-store-is-unknown") {
		return c.refused(err)
	}
	return c.unknown(err)
}

// unknown is the error of a change that may have been made, whatever err is.
func (c change) unknown(err error) error {
	return fmt.Errorf("consul: %s %s: %w: %w", c.op(), c.key, dcs.ErrUnknown, err)
}
