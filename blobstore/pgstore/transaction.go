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
	change  bool // it changes something, and must not be done later than what is done next
	durable bool // commit waits for the disk
	repeat  bool // doing it twice is as good as once
	hurry   bool // the caller has another answer while the database is away
}

var (
	reading   = commit{repeat: true}
	impatient = commit{repeat: true, hurry: true}
	attaching = commit{repeat: true, durable: true} // before the drive is attached there is no epoch
	once      = commit{change: true}
	repeating = commit{change: true, repeat: true}
	durably   = commit{change: true, repeat: true, durable: true}
)

// A statement of a transaction. each, if there is one, is called for every row.
type statement struct {
	sql  string
	args []any
	each func(pgx.Rows) error
}

// begin sets, for one transaction, whose it is, of which drive, and whether its commit waits for the disk. beginChange is for one that changes
// something: see epochs.
const (
	begin       = "select set_config('mediafs.token', $1, true), set_config('mediafs.drive', $2, true), set_config('synchronous_commit', $3, true)"
	beginChange = begin + ", mediafs.enter($4, $5, $6, $7)"
)

// run does statements as one transaction of the drive's session, in one round trip.
//
// While the database is away it tries again until ctx ends, but only what can't have happened, or may happen twice.
// Deadlocks, serialization failures and changes of an epoch that is over have not happened; they are tried again at once.
func (d *Drive) run(ctx context.Context, op string, c commit, statements ...statement) error {
	wait := 10 * time.Millisecond
	for {
		crashes := d.store.crashes.count.Load()
		err := d.try(ctx, c, statements)
		d.hearOfCrash()
		if err == nil {
			if d.known.away.Swap(false) {
				d.log.Info("the database is back")
			}
			if c.change && !c.durable { // what only reads has nothing to be made durable
				d.committed(crashes)
			}
			return nil
		}
		var pg *pgconn.PgError
		collided := errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001" || pg.Code == "MF110") // deadlock_detected, serialization_failure
		if !collided && (!unreachable(err) || !c.repeat && mayHaveHappened(err)) {
			return translate(ctx, op, err)
		}
		if !collided && ctx.Err() == nil {
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

// try does them once.
func (d *Drive) try(ctx context.Context, c commit, statements []statement) error {
	if !c.change {
		return d.transact(ctx, c.durable, begin, nil, statements...)
	}
	if err := d.breakSilence(ctx); err != nil {
		return notSent{err}
	}
	epoch, err := d.epoch(ctx)
	if err != nil {
		return notSent{err}
	}
	err = d.transact(ctx, c.durable, beginChange, []any{d.id, d.mount, d.fence(), epoch}, statements...)
	if err != nil && mayHaveHappened(err) {
		d.epochs.doubt(epoch)
	}
	return err
}

// notSent is an error of what had to be done before a transaction could be sent.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// transact is one transaction, which begins with first.
func (d *Drive) transact(ctx context.Context, durable bool, first string, more []any, statements ...statement) error {
	conn, err := d.store.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	wait := "off"
	if durable {
		wait = "on"
	}
	batch := &pgx.Batch{}
	batch.Queue(first, append([]any{credential(*d.session.Load()), d.wanted, wait}, more...)...)
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
	var before notSent
	return !errors.As(err, &before) && !errors.As(err, &pg) && !errors.As(err, &connect) && !pgconn.SafeToRetry(err)
}

// brokenConnection says whether the other end went away.
func brokenConnection(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
