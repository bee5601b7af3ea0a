package dirstore

import (
	"context"
	"errors"

	"mediafs/auth"
	"mediafs/blobstore"
)

var errPending = errors.New("not built yet")

// OpenDrive implements blobstore.Store.
func (s *Store) OpenDrive(context.Context, auth.Session, blobstore.DriveName) (blobstore.Drive, error) {
	return nil, errPending
}

// Drives implements blobstore.Store.
func (s *Store) Drives(context.Context, auth.Session, blobstore.DriveID, func(blobstore.DriveInfo) bool) error {
	return errPending
}

// AuditLog implements blobstore.Store.
func (s *Store) AuditLog(context.Context, auth.Session, blobstore.AuditQuery, func(*blobstore.AuditRecord) bool) error {
	return errPending
}

// Renew implements blobstore.Drive.
func (d *Drive) Renew(context.Context, auth.Session) error { return errPending }

// Record implements blobstore.Audit.
func (d *Drive) Record(blobstore.Event) {}
