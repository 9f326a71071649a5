package patroni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// ErrUnknown says that a request was sent and its outcome is not known. Ask the cluster, not the server that did not
// answer.
var ErrUnknown = errors.New("patroni: outcome unknown")

// Error is an answer of Patroni's that is not success.
type Error struct {
	Method, URL string
	Status      int    // HTTP status
	Body        string // Patroni's own words
}

func (e *Error) Error() string {
	return fmt.Sprintf("patroni: %s %s: %d %s", e.Method, e.URL, e.Status, strings.TrimSpace(e.Body))
}

// Unwrap tells an unknown outcome apart from a refusal: Patroni answers 503 also when it gave up waiting, and a
// gateway before it that had no answer says 502 or 504.
func (e *Error) Unwrap() error {
	switch {
	case e.Method == http.MethodGet, mutant.Is("law7-gave-up-waiting-is-unknown"):
	case e.Status == http.StatusBadGateway, e.Status == http.StatusGatewayTimeout,
		e.Status == http.StatusServiceUnavailable && strings.Contains(e.Body, "status unknown"):
		return ErrUnknown
	}
	return nil
}

// Client speaks to the REST API of any member. The zero value works. Reading needs no rights; Switchover, Restart,
// PatchConfig and Wake need the API's credentials where it has any.
//
// Nothing is sent twice: redirects are not followed. An error of a call that changes something is an [*Error] (a
// refusal), or ErrUnknown, or the reason why nothing was sent.
type Client struct {
	HTTP     *http.Client // nil: a client of its own without keep-alive (Patroni speaks HTTP/1.0)
	Username string       // empty: no credentials
	Password Secret
}

// Status is what a member says of itself. Absent parts are zero.
type Status struct {
	State     string `json:"state"`
	Role      Role   `json:"role"`
	Timeline  uint32 `json:"timeline"`
	SystemID  string `json:"database_system_identifier"`
	Server    int    `json:"server_version"` // 160004
	Paused    bool   `json:"pause"`
	Failsafe  bool   `json:"failsafe_mode_is_active"`
	Unlocked  bool   `json:"cluster_unlocked"`
	Sync      bool   `json:"sync_standby"`
	Streaming string `json:"replication_state"`
	Patroni   struct {
		Version string `json:"version"`
		Scope   string `json:"scope"`
		Name    string `json:"name"`
	} `json:"patroni"`
}

// Status asks a member about itself. api is Member.API.
func (c *Client) Status(ctx context.Context, api string) (Status, error) {
	var s Status
	body, err := c.do(ctx, http.MethodGet, api+"/patroni", nil)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("patroni: the status of a member cannot be read: %w", err)
	}
	s.Role = s.Role.folded()
	return s, nil
}

// Switchover asks for a planned change of the primary; send it to the leader itself, which acts at once. Patroni
// answers when the leader key has moved, after up to 2*max(10 s, loop_wait): give ctx more. Success means that the
// key names another member, not that this one is writable. An error that is not ErrUnknown is a refusal: nothing
// happened.
func (c *Client) Switchover(ctx context.Context, api, leader, candidate string) error {
	v := map[string]string{"leader": leader}
	if candidate != "" {
		v["candidate"] = candidate
	}
	_, err := c.do(ctx, http.MethodPost, api+"/switchover", v)
	return err
}

// Restart restarts a member's PostgreSQL and answers when it is up again. A 503 may also mean that it was stopped and
// did not come up.
func (c *Client) Restart(ctx context.Context, api string) error {
	_, err := c.do(ctx, http.MethodPost, api+"/restart", struct{}{})
	return err
}

// PatchConfig merges patch into the dynamic configuration; a nil value removes a key.
func (c *Client) PatchConfig(ctx context.Context, api string, patch map[string]any) error {
	_, err := c.do(ctx, http.MethodPatch, api+"/config", patch)
	return err
}

// Wake makes a member's Patroni look at once instead of at its next loop, by a change of the configuration that
// changes nothing: it removes a key that is never there. Do not wake a paused cluster.
func (c *Client) Wake(ctx context.Context, api string) error {
	return c.PatchConfig(ctx, api, map[string]any{"pgconvoy_wake": nil})
}
