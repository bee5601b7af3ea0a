package pgstore

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"mediafs/auth"
	"mediafs/blobstore"
)

// Session is one that opens the drive again.
func (d *Drive) Session() auth.Session { return *d.session.Load() }

// Collect has what was removed taken away now.
func (d *Drive) Collect(ctx context.Context) error { return d.collectAll(ctx) }

// StoreAtimes stores the times of access that reading has moved, as each beat does.
func (d *Drive) StoreAtimes(ctx context.Context) error { return d.storeAtimes(ctx) }

// StoreEverything stores what is pending of a file, as the background does.
func (f *File) StoreEverything(ctx context.Context) error { return f.blob.store(ctx, everything) }

// HearAgain has an answer about the file come that is of before what happened to it since.
func (f *File) HearAgain(attr blobstore.Attr) {
	f.blob.mu.Lock()
	defer f.blob.mu.Unlock()
	f.blob.learn(row{attr: attr, blob: f.blob.number})
}

// AskQuota has the drive hear of its quota now.
func (d *Drive) AskQuota(ctx context.Context) error { return d.askQuota(ctx) }

// Die is what the machine knows of a mount that is killed.
func (d *Drive) Die() { d.spool.die(false) }

// EpochArguments are those of mediafs.enter for the next change.
func (d *Drive) EpochArguments() []any {
	return []any{d.id, d.mount, d.fence(), d.epochs.current.Load()}
}

// Doubt has the outcome of the last change not be known.
func (d *Drive) Doubt() { d.epochs.doubt(d.epochs.current.Load()) }

// What a lookup is made of.
const (
	Begin      = begin
	LookupName = lookupName
)

// MigrateTo makes the schema as it was in a version.
func MigrateTo(ctx context.Context, conn *pgx.Conn, version int32) error {
	if err := makeRoles(ctx, conn); err != nil {
		return err
	}
	return migrateTo(ctx, conn, version)
}

// RepairWaits sets how long a repair waits for locks, until the test ends.
func RepairWaits(t testing.TB, d time.Duration) {
	before := repairWaits
	repairWaits = d
	t.Cleanup(func() { repairWaits = before })
}

// MakeWithin sets how long a new file may be known to its mount alone, until the test ends.
func MakeWithin(t testing.TB, d time.Duration) {
	before := makeWithin
	makeWithin = d
	t.Cleanup(func() { makeWithin = before })
}

// DescribeLater has no file be described until the test ends.
func DescribeLater(t testing.TB) {
	quiet, most, every := describeQuiet, describeMost, describeEvery
	describeQuiet, describeMost, describeEvery = time.Hour, time.Hour, time.Hour
	t.Cleanup(func() { describeQuiet, describeMost, describeEvery = quiet, most, every })
}

// Beat says that the drive is alive now.
func (d *Drive) Beat(ctx context.Context) error { return d.beat(ctx) }

// IsMaking says whether the database does not have a file yet.
func IsMaking(f blobstore.File) bool { return f.(*File).blob.isMaking() }

// MakeNow has the database make a file that it does not have yet, of which nothing is taken note of here.
func (d *Drive) MakeNow(ctx context.Context, f blobstore.File) error {
	b := f.(*File).blob
	b.mu.Lock()
	t := transfer{ino: b.ino, number: b.number, making: b.making, made: b.attr}
	b.mu.Unlock()
	_, err := d.putNew(ctx, t)
	return err
}

// HoldSole has the drive believe that it is alone, however slow the machine is, until ForgetOthers.
func (d *Drive) HoldSole() {
	if d.sole.asking.Acquire(d.life, 1) == nil {
		d.sole.answer.Store(&soleAnswer{until: math.MaxInt64, era: d.known.currentEra()})
	}
}

// ForgetOthers has the drive not know whether it is alone, as after a time without use.
func (d *Drive) ForgetOthers() {
	if a := d.sole.answer.Swap(nil); a != nil && a.until == math.MaxInt64 {
		d.sole.asking.Release(1)
	}
}

// AskAgain asks whether it is alone.
func (d *Drive) AskAgain() {
	if d.sole.asking.Acquire(d.life, 1) == nil {
		defer d.sole.asking.Release(1)
		d.askSole(d.life)
	}
}

// IsSole says whether the drive is known to be alone.
func (d *Drive) IsSole(ctx context.Context) bool { return d.isSole(ctx, d.known.currentEra()) }

// Silence has the last beat be so long ago.
func (d *Drive) Silence(ago time.Duration) { d.locks.heard.Store(sinceBoot() - int64(ago)) }

// ForgetNames has the drive, which goes on to be alone, know nothing.
func (d *Drive) ForgetNames() {
	d.sole.answer.Store(&soleAnswer{until: math.MaxInt64, era: d.known.newEra()})
}

// MakeTogether has the database make files, with their first bytes, that were asked for while a transaction was under way; nothing is taken note of here.
func (d *Drive) MakeTogether(ctx context.Context, files []blobstore.File) []error {
	requests := make([]*makeRequest, len(files))
	for i, f := range files {
		b := f.(*File).blob
		b.mu.Lock()
		p := b.dirty[0]
		requests[i] = &makeRequest{ctx: ctx, answer: make(chan error, 1), t: transfer{
			ino: b.ino, number: b.number, making: b.making, made: b.attr, idx: []int32{0}, data: [][]byte{p.data[:p.bytes()]}, size: p.bytes(),
		}}
		b.mu.Unlock()
	}
	d.makers.mu.Lock()
	d.makers.queue = append(d.makers.queue, requests...)
	d.makers.busy++
	d.makers.mu.Unlock()
	d.makeQueued()
	errs := make([]error, len(files))
	for i, r := range requests {
		errs[i] = <-r.answer
	}
	return errs
}

// KnowLittle has a drive remember few nodes and names, and learn folders as a whole soon, until the test ends.
func KnowLittle(t testing.TB) {
	most, misses := knownMax, wholeMisses
	knownMax, wholeMisses = 4, 2
	t.Cleanup(func() { knownMax, wholeMisses = most, misses })
}

// FillNames has as many names be known as there is room for, of no folder that there is.
func (d *Drive) FillNames() {
	d.known.mu.Lock()
	defer d.known.mu.Unlock()
	for i := range 2 * knownMax {
		d.known.setName(knownName{blobstore.Ino(1 << 40), fmt.Sprint(i)}, 1, d.known.era)
	}
}

// EndConnections ends all connections that nobody uses.
func (d *Drive) EndConnections() { d.store.pool.Reset() }

// ReplaceConnection makes a new connection while there is another, and asks over it.
func (d *Drive) ReplaceConnection(ctx context.Context) error {
	var used []*pgxpool.Conn
	defer func() {
		for _, c := range used {
			c.Release()
		}
	}()
	for len(used) == 0 || d.store.pool.Stat().IdleConns() > 0 {
		c, err := d.store.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		used = append(used, c)
	}
	_, err := d.Attr(ctx, blobstore.RootIno)
	return err
}

// NewEra has nothing be current that is known, as after a time in which others may have come.
func (d *Drive) NewEra() { d.known.newEra() }
