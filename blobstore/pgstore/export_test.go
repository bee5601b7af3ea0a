package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
)

// Session is one that opens the drive again.
func (d *Drive) Session() auth.Session { return *d.session.Load() }

// Collect has what was removed taken away now.
func (d *Drive) Collect(ctx context.Context) error { return d.collectAll(ctx) }

// StoreEverything stores what is pending of a file, as the background does.
func (f *File) StoreEverything(ctx context.Context) error { return f.blob.store(ctx, everything) }

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

// Beat says that the drive is alive now.
func (d *Drive) Beat(ctx context.Context) error { return d.beat(ctx) }
