package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// Twenty writers and five readers while something is done to the service; the
// report says what they saw of it.
func Example() {
	ctx := context.Background()
	l, err := ledger.Start(ctx, "postgres://app@envoy:5432/app", ledger.Load{
		Readers: 5, Read: "postgres://app@envoy:5433/app",
		Direct: []string{"postgres://app@node1:5432/app", "postgres://app@node2:5432/app"},
	})
	if err != nil {
		log.Fatal(err)
	}
	l.Mark("switchover")
	time.Sleep(5 * time.Second) // the switchover
	r, err := l.Stop(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r)
	if r.Lost > 0 || r.Surplus > 0 || r.Stale > 0 || r.Failed > r.InFlight {
		log.Fatal("the service broke its promise")
	}
}

// Events that others report afterwards, with the moment at which they happened,
// are marked when they are known: also after Stop, which then returns the same
// report with them.
func ExampleLedger_NoteAt() {
	ctx := context.Background()
	l, err := ledger.Start(ctx, "postgres://app@envoy:5432/app", ledger.Load{})
	if err != nil {
		log.Fatal(err)
	}
	began := l.Mark("switchover")
	time.Sleep(5 * time.Second) // the switchover, which tells how long each step took
	if _, err := l.Stop(ctx); err != nil {
		log.Fatal(err)
	}
	l.NoteAt(began.Add(120*time.Millisecond), "all poolers hold")
	l.NoteAt(began.Add(310*time.Millisecond), "all poolers routed")
	r, err := l.Stop(ctx)
	if err != nil {
		log.Fatal(err)
	}
	f, err := os.Create("switchover.svg")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := r.Events[0].WriteSVG(f); err != nil { // the part from the mark on
		log.Fatal(err)
	}
}

// The transactions that got no answer, and had committed after all.
func ExampleReport_Attempts() {
	var r ledger.Report // that Stop returned
	for a := range r.Attempts() {
		if a.Outcome == ledger.Unknown && a.Present {
			fmt.Printf("writer %d: transaction %d of %v had committed on timeline %d\n", a.Client, a.Seq, a.Due, a.Timeline)
		}
	}
}

func ExampleReport_String() {
	killed := ledger.Report{
		Name: "primary killed", Checked: true,
		Sent: 9790, Failed: 14, Unknown: 13, P99: 48 * time.Millisecond,
		Stall: 342 * time.Millisecond, Silence: 338 * time.Millisecond, ServerGap: 301 * time.Millisecond,
		Reads: ledger.Reads{
			Readers: 5, Sent: 2447, Failed: 2, Behind: 31, Lag: 330 * time.Millisecond, P99: 3 * time.Millisecond,
			Stall: 12 * time.Millisecond, Silence: 11 * time.Millisecond,
		},
	}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := ledger.Report{
		From: began, Checked: true,
		Sent: 22012, Acknowledged: 21998, Failed: 14, Unknown: 13, Committed: 4, InFlight: 20, Timelines: []uint32{4, 5, 6},
		P99: 41 * time.Millisecond, Stall: 342 * time.Millisecond, Silence: 338 * time.Millisecond, ServerGap: 301 * time.Millisecond,
		BySQLState: map[string]int{"08P01": 13, ledger.LoginFailing: 1},
		FirstError: "FATAL: server conn crashed? (SQLSTATE 08P01)",
		Reads: ledger.Reads{
			Readers: 5, Sent: 5503, Failed: 2, Behind: 40, Lag: 330 * time.Millisecond, P99: 2 * time.Millisecond,
			Stall: 12 * time.Millisecond, Silence: 11 * time.Millisecond,
			BySQLState: map[string]int{"40001": 2},
			FirstError: "ERROR: canceling statement due to conflict with recovery (SQLSTATE 40001)",
		},
		Events: []ledger.Report{
			{
				Name: "switchover", Checked: true, Sent: 8011, P99: 39 * time.Millisecond, Stall: 131 * time.Millisecond,
				Silence: 128 * time.Millisecond, ServerGap: 109 * time.Millisecond,
				Reads: ledger.Reads{Readers: 5, Sent: 2002, Behind: 9, Lag: 11 * time.Millisecond, P99: 2 * time.Millisecond, Stall: 9 * time.Millisecond, Silence: 8 * time.Millisecond},
			},
			killed,
		},
		Notes: []ledger.Note{{At: began.Add(2 * time.Second), Name: "n2 promoted"}},
	}
	fmt.Println(r)
	// Output:
	// writes           sent  failed  unknown  lost  surplus  back  stale   p99  stall  silence  server gap
	// switchover       8011       0        0     0        0     0      0  39ms  131ms    128ms       109ms
	// primary killed   9790      14       13     0        0     0      0  48ms  342ms    338ms       301ms
	// whole run       22012      14       13     0        0     0      0  41ms  342ms    338ms       301ms
	// reads           sent  failed  back  stale  behind    lag  p99  stall  silence
	// switchover      2002       0     0      0       9   11ms  2ms    9ms      8ms
	// primary killed  2447       2     0      0      31  330ms  3ms   12ms     11ms
	// whole run       5503       2     0      0      40  330ms  2ms   12ms     11ms
	// timelines: 4 5 6
	// notes: 2.000s n2 promoted
	// failures: 13 08P01, 1 server login has been failing; of 13 unknown 4 had committed
	// the first: FATAL: server conn crashed? (SQLSTATE 08P01)
	// failed reads: 2 40001
	// the first: ERROR: canceling statement due to conflict with recovery (SQLSTATE 40001)
}

// Durations are text in JSON.
func ExampleReport_MarshalJSON() {
	b, err := json.Marshal(ledger.Report{
		Writers: 20, Sent: 2000, Acknowledged: 2000, Checked: true,
		Stall: 131 * time.Millisecond, Silence: 128 * time.Millisecond,
		P50: 900 * time.Microsecond, P99: 39 * time.Millisecond, ServerGap: 109 * time.Millisecond,
		Table: "pgconvoy_ledger", Run: 7,
	})
	if err != nil {
		log.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		log.Fatal(err)
	}
	fmt.Println(fields["sent"], fields["lost"], fields["stall"], fields["silence"], fields["server_gap"])
	// Output: 2000 0 131ms 128ms 109ms
}
