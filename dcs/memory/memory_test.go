package memory_test

import (
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

func TestContract(t *testing.T) {
	dcstest.TestStore(t, func(*testing.T) dcs.Store { return memory.New() })
}
