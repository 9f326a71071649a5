package etcd_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// deaf makes the first watch stream hear nothing after it was made, while reads work: a server that is cut off, behind
// a connection that does not know it.
type deaf struct {
	reads, streams atomic.Int64  // reads that are done, streams that were opened
	made           chan struct{} // closed when the server has made the first watch
}

func (d *deaf) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
				err := next(ctx, m, req, reply, cc, o...)
				if strings.HasSuffix(m, "/Range") {
					d.reads.Add(1)
				}
				return err
			}),
		grpc.WithChainStreamInterceptor(
			func(ctx context.Context, s *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				cs, err := next(ctx, s, cc, m, o...)
				if err == nil && strings.HasSuffix(m, "/Watch") && d.streams.Add(1) == 1 {
					cs = &deafStream{ClientStream: cs, made: d.made}
				}
				return cs, err
			}),
	}
}

type deafStream struct {
	grpc.ClientStream
	heard int
	made  chan struct{}
}

func (d *deafStream) RecvMsg(m any) error {
	if d.heard++; d.heard > 1 {
		<-d.Context().Done()
		return d.Context().Err()
	}
	defer close(d.made)
	return d.ClientStream.RecvMsg(m)
}

func TestWatchReplacesADeafStream(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	d := &deaf{made: make(chan struct{})}
	store := connect(t, []netip.AddrPort{address(s)}, func(c *clientv3.Config) { c.DialOptions = append(c.DialOptions, d.options()...) })
	store.Reconfirm = 2 * time.Second
	store.Timeout = 500 * time.Millisecond
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh(""))
	select { // a stream that begins behind would be replaced at once, deaf or not
	case <-d.made:
	case <-time.After(30 * time.Second):
		t.Fatal("no watch was made")
	}
	reads := d.reads.Load()
	v := storetest.Put(t, s.Store(), "k", "0", dcs.Version{})
	f.Until("repaired by a read", storetest.Fresh("k=0"))
	if d.reads.Load() == reads {
		t.Fatal("the stream was not deaf")
	}
	for deadline := time.Now().Add(30 * time.Second); d.streams.Load() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the deaf stream is still in use")
		}
	}
	// Changes come by events again: not each of them waits for a read.
	for i := 1; ; i++ {
		reads := d.reads.Load()
		v = storetest.Put(t, s.Store(), "k", fmt.Sprint(i), v)
		f.Until("following", storetest.Fresh(fmt.Sprint("k=", i)))
		if d.reads.Load() == reads {
			break
		}
		if i == 20 {
			t.Fatal("20 changes, and each arrived by a read")
		}
	}
}
