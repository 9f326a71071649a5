// Package pooler controls one PgBouncer: where it sends its server connections, and whether it lets transactions
// start. It imports pgconn and nothing else of pgx.
//
//   - [Local] is the whole of it for a PgBouncer on this machine: [Local.State], [Local.Hold] and [Local.Route] move
//     its clients from one primary to another without an error.
//   - [Console] and [Show] are the admin console, one command at a time, columns by name.
//   - [Ini] and [UserList] write PgBouncer's files, [ParseIni] and [ParseUserList] read them, and [Rewrite] changes
//     the target in a file that somebody else wrote and nothing else.
//
// A move, with the old primary at 10.0.0.1 and the new one at 10.0.0.2:
//
//	p := &pooler.Local{Config: "/etc/pgbouncer/pgbouncer.ini", Connect: pooler.ConnectWith(config)}
//	err := p.Hold(ctx)                                    // new transactions wait, running ones have ended
//	...                                                   // 10.0.0.2 is promoted and proven
//	err = p.Route(ctx, pooler.Target{Hosts: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:5432")}, Mark: "epoch 7"})
//
// What the pooler should have for this: pool_mode transaction or statement, server_login_retry 0 or 1,
// query_wait_timeout longer than any hold, and literal addresses instead of names. The package asks none of these
// of the file; it works on what it finds.
//
// PgBouncer 1.19 or later is needed, and 1.24 or later to end a transaction that hangs on an old server.
package pooler
