// Package ledger runs clients that account for every transaction, and proves
// afterwards what became of each.
//
// The clients are an open loop: each writer starts one transaction per tick of
// a fixed schedule, whatever became of the one before, and latency counts from
// the moment the transaction was due, not from the moment it was sent. A
// service that stalls for a second therefore shows a second, for every client
// that would have come in that time; a closed loop would show one slow
// transaction and hide the rest.
//
// A [Ledger] keeps one record per transaction: acknowledged, surely failed, or
// outcome unknown (the connection was lost after the transaction was sent). An
// unknown one is never sent again: each transaction is attempted exactly once,
// so what the table holds can be compared with what was promised.
//
//	l, err := ledger.Start(ctx, dsn, ledger.Load{Readers: 5, Direct: nodes})
//	...
//	l.Mark("switchover")
//	... // whatever should be survived
//	r, err := l.Stop(ctx)
//	fmt.Println(r)      // one line per mark, one for the whole run
//	if r.Lost > 0 || r.Failed > r.InFlight { ... }
//	err = r.WriteSVG(f) // the same to look at
//
// # What is proved
//
// [Ledger.Stop] reads every row back. Lost counts what was acknowledged and is
// not there, Surplus what is there and should not be, and the unknown ones are
// resolved by what the table says.
//
// Each row tells on which timeline the server wrote it, and each writer learns
// it with the acknowledgement. Back counts the writes of clients that were sent
// back to an older timeline, Stale what a server of an older timeline accepted
// after somebody had been served by the newer one. Both are 0 as long as nobody
// can reach an old primary after the move.
//
// Readers ask for the newest row of a writer. A primary must show all that was
// acknowledged before, else the read is Stale; how far standbys lag is measured
// and not judged. See [Reads].
//
// [Report.Attempts] has the record of each single transaction behind these
// figures.
//
// # Needs
//
// The user of the DSN needs to insert and select in the table, and to create it
// where it does not exist; with readers to create an index too, and the user of
// Load.Read to select. Clients use one named prepared statement per connection,
// which PgBouncer carries over transaction pooling since 1.21
// (max_prepared_statements above zero). For a pooler that cannot, add
// default_query_exec_mode=exec to the DSN.
package ledger
