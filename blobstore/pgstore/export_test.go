package pgstore

import (
	"context"

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
