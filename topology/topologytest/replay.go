package topologytest

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// PauseReplay lets a replica receive what the primary writes and show none of it: the process that replays stands still.
// (What pg_wal_replay_pause has paused, Patroni resumes.) The undo lets it go on.
func (s *Stack) PauseReplay(node string) Undo {
	s.t.Helper()
	var thaw func()
	return s.inject("pause the replay of "+node, func(ctx context.Context) error {
		pid, err := s.replayer(ctx, node)
		if err != nil {
			return err
		}
		thaw, err = proc.FreezeOne(pid)
		return err
	}, func(context.Context) error {
		thaw()
		return nil
	})
}

// replayer is the process of a replica that replays.
func (s *Stack) replayer(ctx context.Context, node string) (pid int, err error) {
	dsn := s.r.SuperuserDSN(node)
	if dsn == "" {
		return 0, errors.New("there is no such node")
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'").Scan(&pid)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errors.New("it is a primary, which replays nothing")
	}
	return pid, err
}
