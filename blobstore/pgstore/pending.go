package pgstore

import (
	"context"
	"errors"

	"mediafs/auth"
	"mediafs/blobstore"
)

var errPending = errors.New("not built yet")

// AuditLog implements blobstore.Store.
func (s *Store) AuditLog(context.Context, auth.Session, blobstore.AuditQuery, func(*blobstore.AuditRecord) bool) error {
	return errPending
}

// Record implements blobstore.Audit.
func (d *Drive) Record(blobstore.Event) {}
