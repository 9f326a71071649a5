package consumer_test

import (
	"context"
	"iter"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// fixed is a source for a database that never moves.
type fixed struct{ addr netip.AddrPort }

var _ topology.LeaderSource = fixed{}

func (f fixed) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		now := time.Now()
		l := patroni.Leadership{
			Phase: patroni.Writable, Member: "db", Addr: f.addr, At: now, Reason: "there is no other",
			Epoch: patroni.Epoch{SystemID: "7268616322854375442", Timeline: 1, Created: 1},
			Proof: patroni.Proof{Writable: true, Timeline: 1, SystemID: "7268616322854375442", At: now},
		}
		if !yield(l, nil) {
			return
		}
		<-ctx.Done()
		yield(l, context.Cause(ctx))
	}
}

func TestLeaderSource(t *testing.T) {
	source := fixed{netip.MustParseAddrPort("10.0.0.1:5432")}
	o := &topology.Observer{Path: "/service/demo", Store: memory.New(), Leaders: source}
	v := o.View(t.Context())
	if v.Leadership.Member != "db" || v.Leadership.Addr != source.addr || v.Leadership.Phase != patroni.Writable.String() {
		t.Errorf("the view has %+v, not what the source says", v.Leadership)
	}
}
