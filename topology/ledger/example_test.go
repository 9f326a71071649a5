package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// Twenty writers while something is done to the service; the report says what
// they saw of it.
func Example() {
	ctx := context.Background()
	l, err := ledger.Start(ctx, "postgres://app@envoy:5432/app", ledger.Load{
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
	if r.Lost > 0 || r.Surplus > 0 || r.Failed > r.InFlight {
		log.Fatal("the service broke its promise")
	}
}

func ExampleReport_String() {
	killed := ledger.Report{
		Name: "primary killed", Checked: true,
		Sent: 9790, Failed: 14, Unknown: 13, P99: 48 * time.Millisecond,
		Stall: 342 * time.Millisecond, Silence: 338 * time.Millisecond, ServerGap: 301 * time.Millisecond,
	}
	r := ledger.Report{
		Checked: true,
		Sent:    22012, Acknowledged: 21998, Failed: 14, Unknown: 13, Committed: 4, InFlight: 20,
		P99: 41 * time.Millisecond, Stall: 342 * time.Millisecond, Silence: 338 * time.Millisecond, ServerGap: 301 * time.Millisecond,
		BySQLState: map[string]int{"08P01": 13, ledger.LoginFailing: 1},
		FirstError: "FATAL: server conn crashed? (SQLSTATE 08P01)",
		Events: []ledger.Report{
			{Name: "switchover", Checked: true, Sent: 8011, P99: 39 * time.Millisecond, Stall: 131 * time.Millisecond, Silence: 128 * time.Millisecond, ServerGap: 109 * time.Millisecond},
			killed,
		},
	}
	fmt.Println(r)
	// Output:
	//                  sent  failed  unknown  lost  surplus   p99  stall  silence  server gap
	// switchover       8011       0        0     0        0  39ms  131ms    128ms       109ms
	// primary killed   9790      14       13     0        0  48ms  342ms    338ms       301ms
	// whole run       22012      14       13     0        0  41ms  342ms    338ms       301ms
	// failures: 13 08P01, 1 server login has been failing; of 13 unknown 4 had committed
	// the first: FATAL: server conn crashed? (SQLSTATE 08P01)
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
