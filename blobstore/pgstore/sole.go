package pgstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// A mount that is the sole one of its drive knows all that changes there, and may answer from memory (known.go) and put off what nobody else
// waits for (newfile.go). Whether it is, it asks the database while it is used, and an answer is good for a short time from when it was
// asked. Who comes later makes itself known first, durably, and waits for longer than that before it does anything: by then the mount that was
// alone has heard of it, or has been without an answer for too long to believe that it still is.
//
// Whoever changes a drive other than through a mount leaves a row in mediafs.mounts as if it were one.
const (
	soleFor     = 400 * time.Millisecond // how long an answer is good
	soleEvery   = 100 * time.Millisecond // how often it is asked for
	soleUsed    = 2 * time.Second        // how long after it was last used
	notSoleFor  = 2 * time.Second        // how long a mount that is not alone does not ask again
	arrivalWait = 500 * time.Millisecond // how long a mount waits that is not the first
)

// sole is what the mount knows of being alone.
type sole struct {
	answer atomic.Pointer[soleAnswer] // the last; nil: it is not known to be alone
	used   atomic.Int64               // sinceBoot: when somebody last wanted to know
	ask    chan struct{}              // says that somebody wants to know
}

// A soleAnswer is that the mount is alone.
type soleAnswer struct {
	until int64  // sinceBoot: good for so long
	era   uint64 // known.era: it has been alone all through
}

// sinceBoot is a clock that no one sets, and that goes on while the machine sleeps.
func sinceBoot() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // every Linux that FUSE runs on has it
	}
	return t.Nano()
}

// isSole says whether no other mount has used the drive since an era of what is known began. Asked after looking at what is known, it says
// whether that is so still. There is no era 0.
func (d *Drive) isSole(era uint64) bool {
	if d.guest || era == 0 {
		return false
	}
	now := sinceBoot()
	d.sole.used.Store(now)
	if a := d.sole.answer.Load(); a != nil && now < a.until {
		return a.era == era
	}
	select {
	case d.sole.ask <- struct{}{}:
	default: // it is being asked
	}
	return false
}

// watchSole asks whether the mount is alone, as long as somebody wants to know.
func (d *Drive) watchSole() {
	for {
		select {
		case <-d.life.Done():
			return
		case <-d.sole.ask:
		}
		for wait := soleEvery; sinceBoot()-d.sole.used.Load() < int64(soleUsed); {
			sent := sinceBoot()
			ctx, cancel := context.WithTimeout(d.life, soleFor)
			others, err := d.others(ctx)
			cancel()
			switch {
			case err == nil && !others:
				next := &soleAnswer{until: sent + int64(soleFor)}
				if last := d.sole.answer.Load(); last != nil && sent < last.until {
					next.era = d.known.currentEra()
				} else { // it was not known for a while: others may have come and gone
					next.era = d.known.newEra()
				}
				d.sole.answer.Store(next)
				wait = soleEvery
			case err == nil:
				d.sole.answer.Store(nil)
				wait = notSoleFor
			}
			select {
			case <-d.life.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// others says whether another mount may use the drive. One that has not been heard of for a minute is dead; that is believed only by who has been
// heard of all that time, and so would have heard of it.
func (d *Drive) others(ctx context.Context) (bool, error) {
	others := true
	err := d.run(ctx, "ask for other mounts", impatient, statement{
		sql: `select exists (select from mediafs.mounts o where o.drive_id = $1 and o.mount_id <> $2
				and (o.seen_at >= now() - interval '60 s' or m.since >= now() - interval '60 s'))
			from mediafs.mounts m where m.drive_id = $1 and m.mount_id = $2`,
		args: []any{d.id, d.mount},
		each: func(r pgx.Rows) error { return r.Scan(&others) },
	})
	return others, err
}

// arrive waits until a mount that was alone so far knows that it no longer is.
func (d *Drive) arrive(ctx context.Context) error {
	if others, err := d.others(ctx); err != nil || !others {
		return err
	}
	select {
	case <-time.After(arrivalWait):
		return nil
	case <-ctx.Done():
		return translate(ctx, "open drive", context.Cause(ctx))
	}
}
