package pgstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// A mount that is the sole one of its drive knows all that changes there, and may answer from memory (known.go) and put off what nobody else
// waits for (newfile.go). Whether it is, it asks the database while it is used, and an answer is good for a short time from when it was
// asked. Who comes later makes itself known first, durably, and waits for longer than that before it does anything: by then the mount that was
// alone has heard of it, or has been without an answer for too long to believe that it still is.
//
// Whoever changes a drive other than through a mount leaves a row in mediafs.mounts as if it were one. An application that changes it by SQL
// holds a lock as well until its transaction ends, since its row is not seen before that.
const (
	soleFor     = 400 * time.Millisecond // how long an answer is good
	soleEvery   = 100 * time.Millisecond // how often it is asked for
	soleUsed    = 2 * time.Second        // how long after it was last used
	notSoleFor  = 2 * time.Second        // how long a mount that is not alone does not ask again
	arrivalWait = 500 * time.Millisecond // how long a mount waits that is not the first
)

// sole is what the mount knows of being alone.
type sole struct {
	asking *semaphore.Weighted        // held while the database is asked
	answer atomic.Pointer[soleAnswer] // the last; nil: it is not known to be alone
	not    atomic.Int64               // sinceBoot: until then it is not asked again, as it is not alone, or nobody answers
	used   atomic.Int64               // sinceBoot: when somebody last wanted to know
	begun  chan struct{}              // says that it is to be asked from time to time
}

func newSole() *sole {
	return &sole{asking: semaphore.NewWeighted(1), begun: make(chan struct{}, 1)}
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
// whether that is so still. If that has not been asked for a while it is a round trip, which begins a new era. There is no era 0.
func (d *Drive) isSole(ctx context.Context, era uint64) bool {
	s := d.sole
	if d.guest || d.life.Err() != nil {
		return false
	}
	now := sinceBoot()
	s.used.Store(now)
	if a := s.answer.Load(); a != nil && now < a.until {
		return a.era == era
	}
	if now < s.not.Load() || d.known.away.Load() || s.asking.Acquire(ctx, 1) != nil {
		return false
	}
	defer s.asking.Release(1)
	if a := s.answer.Load(); a == nil || sinceBoot() >= a.until { // nobody else has asked meanwhile
		d.askSole(ctx)
		select {
		case s.begun <- struct{}{}:
		default:
		}
	}
	return false
}

// isSure says whether the last answer says so, without asking.
func (s *sole) isSure(era uint64) bool {
	a := s.answer.Load()
	return a != nil && sinceBoot() < a.until && a.era == era
}

// askSole asks once. With asking.
func (d *Drive) askSole(ctx context.Context) {
	s := d.sole
	sent := sinceBoot()
	ctx, cancel := context.WithTimeout(ctx, soleFor)
	defer cancel()
	others, err := d.others(ctx)
	if err != nil || others {
		s.not.Store(sinceBoot() + int64(notSoleFor))
		if err == nil || isSessionEnd(err) {
			s.answer.Store(nil)
		}
		return
	}
	next := &soleAnswer{until: sent + int64(soleFor)}
	if last := s.answer.Load(); last != nil && sent < last.until {
		next.era = d.known.currentEra()
	} else { // it was not known for a while: others may have come and gone
		next.era = d.known.newEra()
	}
	s.answer.Store(next)
}

// watchSole goes on asking, as long as somebody wants to know, so that nobody has to wait for it.
func (d *Drive) watchSole() {
	s := d.sole
	for {
		select {
		case <-d.life.Done():
			return
		case <-s.begun:
		}
		for sinceBoot()-s.used.Load() < int64(soleUsed) && s.not.Load() < sinceBoot() {
			select {
			case <-d.life.Done():
				return
			case <-time.After(soleEvery):
			}
			if s.asking.Acquire(d.life, 1) == nil {
				d.askSole(d.life)
				s.asking.Release(1)
			}
		}
	}
}

// sqlLock and the drive's number are the advisory lock of those who change the drive by SQL, and sqlMount is their row of mediafs.mounts: see mediafs.announce.
const (
	sqlLock  = int32(1835361382)
	sqlMount = "00000000-0000-8000-8000-000000000000"
)

// others says whether another mount may use the drive, or an application, and finds out on the way what the drive may hold. A mount that has not been
// heard of for a minute is dead; that is believed only by who has been heard of all that time, and so would have heard of it. The lock is asked for
// first: of whoever has let it go by then, the row is seen.
func (d *Drive) others(ctx context.Context) (bool, error) {
	free, others := false, true
	a := d.quota.asking()
	var used []int64
	err := d.run(ctx, "ask for other mounts", impatient, statement{
		sql:  "select pg_try_advisory_xact_lock($1, $2)",
		args: []any{sqlLock, d.id},
		each: func(r pgx.Rows) error { return r.Scan(&free) },
	}, statement{
		sql: `select exists (select from mediafs.mounts o where o.drive_id = $1 and o.mount_id <> $2
				and (o.seen_at >= now() - interval '60 s' or m.since >= now() - interval '60 s' and o.mount_id <> '` + sqlMount + `')),
			d.max_bytes, d.max_nodes, case when d.max_bytes > 0 or d.max_nodes > 0 then
				(select array[sum(u.bytes)::bigint, sum(u.nodes)::bigint] from mediafs.usage u where u.drive_id = $1) end
			from mediafs.mounts m join mediafs.drives d on d.drive_id = $1 where m.drive_id = $1 and m.mount_id = $2`,
		args: []any{d.id, d.mount},
		each: func(r pgx.Rows) error { return r.Scan(&others, &a.maxBytes, &a.maxNodes, &used) },
	})
	if len(used) == 2 {
		a.bytes, a.nodes = used[0], used[1]
		d.quota.answered(a)
	} else if last := d.quota.last.Load(); err == nil && (last.maxBytes > 0 || last.maxNodes > 0) { // there was a limit
		err = d.askQuota(ctx)
	}
	return others || !free, err
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
