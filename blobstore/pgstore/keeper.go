package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

const (
	beatEvery    = 5 * time.Second  // a mount that says nothing for 60 s is taken for dead (migrations/002_operations.sql)
	storeAfter   = 5 * time.Second  // what is written and not closed is stored after this long, as ext4 does
	collectAfter = time.Second      // what was removed meanwhile is collected together
	attemptLimit = 30 * time.Second // of one attempt in the background
	collectBatch = 2000             // chunks, or nodes, collected in one transaction
)

// keep is the drive's background: it says that the mount is alive and which locks it holds, stores what has been pending for long, and
// collects what was removed.
func (d *Drive) keep() {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	var collecting <-chan time.Time // nil: nothing was removed
	for {
		select {
		case <-d.life.Done():
			return
		case <-d.settle:
			d.attempt("tell which locks are held", d.settleLocks)
		case <-d.collect:
			if collecting == nil {
				collecting = time.After(collectAfter)
			}
		case <-collecting:
			collecting = nil
			d.attempt("collect what was removed", d.collectAll)
		case <-ticker.C:
			if d.guest {
				d.attempt("refresh the usage", d.askQuota)
				continue
			}
			d.attempt("say that the mount is alive", d.beat)
			d.attempt("store times of access", d.storeAtimes)
			for _, b := range d.pendingBlobs() {
				if b.pendingSince(time.Now().Add(-storeAfter)) {
					b.storeInBackground(everything)
				}
			}
			d.attempt("tell which locks are held", d.settleLocks)
			d.spool.tidy()
			if d.spool.isLeft() {
				d.attempt("store what was kept on disk", d.replay)
			}
			d.attempt("collect what was removed", d.collectAll)
			d.attempt("refresh the usage", d.askQuota)
		}
	}
}

// attempt does something in the background once; it is done again later in any case.
func (d *Drive) attempt(what string, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(d.life, attemptLimit)
	defer cancel()
	if err := do(ctx); err != nil && d.life.Err() == nil {
		d.log.Warn("could not "+what+"; trying again later", "error", err)
	}
}

// collectSoon has the keeper collect.
func (d *Drive) collectSoon() {
	if d.guest {
		return
	}
	select {
	case d.collect <- struct{}{}:
	default: // it is about to
	}
}

// collectAll takes away, a batch at a time, what was removed and nobody has open.
//
// What may go is asked for first, and what is open here is looked at afterwards: a node that has no name and is not open can't
// come to be open again, but one that is open could lose its name between a look and a question in the other order.
func (d *Drive) collectAll(ctx context.Context) error {
	for {
		var blobs []int64
		var asked int
		err := d.run(ctx, "collect", reading, statement{
			sql:  "select r.blob, r.ino from mediafs.removable($1, $2, $3) r",
			args: []any{d.id, d.mount, collectBatch},
			each: func(r pgx.Rows) error {
				var number, ino int64
				if err := r.Scan(&number, &ino); err != nil {
					return err
				}
				asked++
				if d.peek(blobstore.Ino(ino)) == nil {
					blobs = append(blobs, number)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		for more := len(blobs) > 0; more; {
			err := d.run(ctx, "collect", repeating, statement{
				sql:  "select mediafs.collect($1, $2, $3)",
				args: []any{d.id, blobs, collectBatch},
				each: func(r pgx.Rows) error { return r.Scan(&more) },
			})
			if err != nil {
				return err
			}
		}
		if asked < collectBatch || len(blobs) == 0 {
			return nil
		}
	}
}
