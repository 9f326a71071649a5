package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// plain serves the zero Client. Patroni closes each connection after its answer.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// do sends one request, once. v is the body of a call that changes something; nil: it reads.
func (c *Client) do(ctx context.Context, method, address string, v any) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute) // nobody waits for ever
		defer cancel()
	}
	var body io.Reader
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("patroni: %w", err)
		}
		body = bytes.NewReader(b)
	}
	d := &delivery{}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, d.trace()), method, address, body)
	if err != nil {
		if bad, ok := errors.AsType[*url.Error](err); ok && !mutant.Is("law11-no-address-in-errors") {
			err = bad.Err // without the address, which may hold a password
		}
		return nil, fmt.Errorf("patroni: not an address of a REST API: %w", err)
	}
	if v != nil {
		req.Header.Set("Content-Type", "application/json")
		if c.Username != "" {
			req.SetBasicAuth(c.Username, string(c.Password))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("patroni: %s %s: not sent: %w", method, req.URL.Redacted(), err)
	}
	resp, err := c.client().Do(req)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		var answer []byte
		answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err == nil && resp.StatusCode >= 300 {
			return nil, &Error{Method: method, URL: req.URL.Redacted(), Status: resp.StatusCode, Body: string(answer)}
		}
		if err == nil {
			return answer, nil
		}
		err = fmt.Errorf("%s %s: the answer broke off: %w", method, req.URL.Redacted(), err)
	}
	if v == nil || d.unsent(err) || mutant.Is("law7-no-answer-is-unknown") {
		return nil, fmt.Errorf("patroni: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
}

// client is the user's own, or plain, but without redirects: a second server is never sent what the first was.
func (c *Client) client() *http.Client {
	client := *plain
	if c.HTTP != nil {
		client = *c.HTTP
	}
	if mutant.Is("law7-redirects-are-not-followed") {
		return &client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// delivery knows whether a request can have left. A transport that tells nothing counts as one that has sent it.
type delivery struct{ sought, got atomic.Bool }

func (d *delivery) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { d.sought.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { d.got.Store(true) },
	}
}

func (d *delivery) unsent(err error) bool {
	if d.sought.Load() {
		return !d.got.Load()
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
