package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// commit says what a transaction waits for, and whether it may be sent again when its outcome is not known.
type commit struct {
	durable bool // commit waits for the disk
	repeat  bool // doing it twice is as good as once
	hurry   bool // the caller has another answer while the database is away
}

var (
	reading   = commit{repeat: true}
	impatient = commit{repeat: true, hurry: true}
	once      = commit{}
	repeating = commit{repeat: true}
	durably   = commit{durable: true, repeat: true}
)

// A statement of a transaction. each, if there is one, is called for every row.
type statement struct {
	sql  string
	args []any
	each func(pgx.Rows) error
}

// begin sets, for one transaction, whose it is, of which drive, and whether its commit waits for the disk.
const begin = "select set_config('mediafs.token', $1, true), set_config('mediafs.drive', $2, true), set_config('synchronous_commit', $3, true)"

// run does statements as one transaction of the drive's session, in one round trip.
//
// While the database is away it tries again until ctx ends, but only what can't have happened, or may happen twice.
// Deadlocks and serialization failures have not happened; they are tried again at once.
func (d *Drive) run(ctx context.Context, op string, c commit, statements ...statement) error {
	wait := 10 * time.Millisecond
	for {
		err := d.try(ctx, c, statements)
		if err == nil {
			if d.known.away.Swap(false) {
				d.log.Info("the database is back")
			}
			if !c.durable {
				d.commits.Add(1)
			}
			return nil
		}
		var pg *pgconn.PgError
		collided := errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001") // deadlock_detected, serialization_failure
		if !collided && (!unreachable(err) || !c.repeat && mayHaveHappened(err)) {
			return translate(ctx, op, err)
		}
		if !collided && ctx.Err() == nil {
			d.isAway()
			if !d.known.away.Swap(true) {
				d.log.Warn("the database can't be reached; operations wait for it", "operation", op, "error", err)
			}
			if c.hurry {
				return translate(ctx, op, err)
			}
		}
		if ctx.Err() != nil {
			return translate(ctx, op, err)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w (last: %w)", translate(ctx, op, context.Cause(ctx)), err)
		case <-timer.C:
		}
		wait = min(2*wait, time.Second)
	}
}

func (d *Drive) try(ctx context.Context, c commit, statements []statement) error {
	conn, err := d.store.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	durable := "off"
	if c.durable {
		durable = "on"
	}
	batch := &pgx.Batch{}
	batch.Queue(begin, credential(*d.session.Load()), d.wanted, durable)
	for _, s := range statements {
		batch.Queue(s.sql, s.args...)
	}
	results := conn.SendBatch(ctx, batch)
	if _, err := results.Exec(); err != nil {
		return errors.Join(err, results.Close())
	}
	for _, s := range statements {
		rows, err := results.Query()
		for err == nil && rows.Next() {
			if s.each != nil {
				err = s.each(rows)
			}
		}
		rows.Close()
		if err = errors.Join(err, rows.Err()); err != nil {
			return errors.Join(err, results.Close())
		}
	}
	return results.Close() // the answer to the commit
}

// mayHaveHappened says whether a transaction that failed could have been committed all the same: its statements were sent and
// the answer was lost.
func mayHaveHappened(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	return !errors.As(err, &pg) && !errors.As(err, &connect) && !pgconn.SafeToRetry(err)
}

// brokenConnection says whether the other end went away.
func brokenConnection(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
