package pgstore

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
)

// Session is one that opens the drive again.
func (d *Drive) Session() auth.Session { return *d.session.Load() }

// Collect has what was removed taken away now.
func (d *Drive) Collect(ctx context.Context) error { return d.collectAll(ctx) }

// StoreAtimes stores the times of access that reading has moved, as each beat does.
func (d *Drive) StoreAtimes(ctx context.Context) error { return d.storeAtimes(ctx) }

// StoreEverything stores what is pending of a file, as the background does.
func (f *File) StoreEverything(ctx context.Context) error { return f.blob.store(ctx, everything) }

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

// Beat says that the drive is alive now.
func (d *Drive) Beat(ctx context.Context) error { return d.beat(ctx) }
