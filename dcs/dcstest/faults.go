package dcstest

import (
	"reflect"
	"testing"
)

// Faults are the means to break a store under test. One that a back end has not is nil: the cases that need it are left
// out, and t's log says which. They are called from the case's goroutine, and may end the case through t.
//
// What returns heal lasts until heal is called, which happens once, before the case ends.
type Faults struct {
	// The paths of the client that open returned with these; other clients are served meanwhile.

	// Cut ends the client's connections and refuses new ones.
	Cut func(t *testing.T) (heal func())
	// Mute lets requests arrive and be carried out, and keeps the answers back.
	Mute func(t *testing.T) (heal func())
	// Halt keeps everything back in both directions, and lets it go when healed: as if the client's process were
	// stopped and continued.
	Halt func(t *testing.T) (heal func())
	// Expire has the servers end the lease that key belongs to, as if its time were over, and returns when key is gone.
	Expire func(t *testing.T, key string)

	// The servers: every client suffers. Cases that need these run alone.

	// Restart stops all servers and starts them again with their data, in less than half of a lease's TTL: a third may
	// have passed since the last renewal, and a tenth is kept in reserve.
	Restart func(t *testing.T)
	// KillLeader kills the server that leads; of one server, that one. heal starts it again and waits until it serves.
	KillLeader func(t *testing.T) (heal func())
	// LoseQuorum leaves the servers without a majority.
	LoseQuorum func(t *testing.T) (heal func())
	// Forget has the servers forget the history that a watch which lags behind would have to be told: etcd's compaction.
	Forget func(t *testing.T)
	// Backup takes a copy of the store. restore replaces the store by that copy: its versions go back.
	Backup func(t *testing.T) (restore func())
}

// lacks returns which of these fields are nil.
func (f Faults) lacks(names []string) (missing []string) {
	for _, name := range names {
		if reflect.ValueOf(f).FieldByName(name).IsNil() {
			missing = append(missing, name)
		}
	}
	return missing
}
