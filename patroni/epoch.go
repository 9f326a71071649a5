package patroni

import (
	"fmt"
	"strconv"
	"strings"
)

// Epoch identifies one leadership: which database it is, on which timeline, and which acquisition of the leader key.
// It is comparable. The zero value means "none yet".
type Epoch struct {
	SystemID string `json:"system_id,omitempty"` // PostgreSQL's system identifier in decimal
	Timeline uint32 `json:"timeline,omitempty"`
	Created  uint64 `json:"created,omitempty"` // creation revision of the leader key
}

// IsZero reports whether no leadership was ever seen.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// String is the form that ParseEpoch reads: "7268616322854375442/3/1027".
func (e Epoch) String() string {
	if e.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s/%d/%d", e.SystemID, e.Timeline, e.Created)
}

// ParseEpoch reads what String wrote; the empty string is the zero epoch.
func ParseEpoch(s string) (Epoch, error) {
	if s == "" {
		return Epoch{}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 3 {
		tl, err1 := strconv.ParseUint(parts[1], 10, 32)
		created, err2 := strconv.ParseUint(parts[2], 10, 64)
		if err1 == nil && err2 == nil && parts[0] != "" {
			return Epoch{SystemID: parts[0], Timeline: uint32(tl), Created: created}, nil
		}
	}
	return Epoch{}, fmt.Errorf("patroni: %q is not an epoch (system identifier/timeline/revision)", s)
}

// Order says how a leadership stands to another one.
type Order int

// The answers of Compare.
const (
	Same    Order = iota // the same leadership: no reason to move
	Newer                // a later leadership: move
	Older                // an earlier one: never go back
	Rebuilt              // same timeline, another address, a lower revision: the store was rebuilt. A person decides
	Foreign              // another database (system identifier). A person decides
)

func (o Order) String() string {
	return word(int(o), "same", "newer", "older", "rebuilt store", "foreign database")
}

// Compare says how the leadership e, proven at an address that is or is not the old one's, stands to old.
// Anything is newer than the zero epoch.
func (e Epoch) Compare(old Epoch, sameAddress bool) Order {
	switch {
	case old.IsZero():
		return Newer
	case e.SystemID != old.SystemID:
		return Foreign
	case e.Timeline > old.Timeline:
		return Newer
	case e.Timeline < old.Timeline:
		return Older
	case sameAddress:
		return Same // whatever the revision says
	case e.Created > old.Created:
		return Newer
	case e.Created < old.Created:
		return Rebuilt
	}
	return Older // the same acquisition at another address: a member changed its address without a new leadership
}
