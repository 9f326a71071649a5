package local_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// An application's connection lives through a planned switchover. The programs come from `make setup`.
func ExampleRun() {
	err := local.Run(context.Background(), topology.Spec{}, func(ctx context.Context, s *local.Stack) error {
		conn, err := pgx.Connect(ctx, s.WriteDSN()) // through Envoy and a PgBouncer to the primary
		if err != nil {
			return err
		}
		report, err := s.Do(ctx, topology.Switchover{}) // the best candidate, the default budget
		if err != nil {
			return err
		}
		var recovery bool
		err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovery)
		fmt.Println("moved:", report.From != report.To, "read-only:", recovery)
		return err
	})
	fmt.Println(err)
	// Output:
	// moved: true read-only: false
	// <nil>
}
