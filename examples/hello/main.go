// Hello is the program of the README.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

func main() {
	err := local.Run(context.Background(), topology.Spec{}, func(ctx context.Context, s *local.Stack) error {
		conn, err := pgx.Connect(ctx, s.WriteDSN()) // through Envoy and a PgBouncer to the primary
		if err != nil {
			return err
		}
		report, err := s.Do(ctx, topology.Switchover{}) // this connection lives on
		fmt.Print(report)
		_, qerr := conn.Exec(ctx, "CREATE TABLE hello (id int)")
		fmt.Println("the same connection, on the new primary:", qerr)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}
