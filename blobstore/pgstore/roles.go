package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
)

// guestToken is what a guest's transactions send for a token. It proves nothing: the database lets it read the public drive.
const guestToken = "guest"

// pageDrives is how many drives Drives asks for at a time.
const pageDrives = 1000

// credential is what a session's transactions send for a token.
func credential(session auth.Session) string {
	if session.Role == auth.RoleGuest {
		return guestToken
	}
	return session.Token.Reveal()
}

// check gives an error for a session that has ended, or that is of a user whom no drive can be named after.
func check(session auth.Session) error {
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	if session.Role == auth.RoleGuest {
		return nil
	}
	if err := session.User.Check(); err != nil || session.User == auth.UserID(blobstore.PublicDrive) {
		return fmt.Errorf("pgstore: open the drive of %q: %w", session.User, auth.ErrUserID)
	}
	return nil
}

// Open attaches the drive of the session's user, or for a guest the public one.
func (s *Store) Open(ctx context.Context, session auth.Session) (blobstore.Drive, error) {
	if session.Role == auth.RoleGuest {
		return s.OpenDrive(ctx, session, blobstore.PublicDrive)
	}
	if err := check(session); err != nil {
		return nil, err
	}
	drive, err := s.attach(ctx, session, "", statement{ // a new drive outlives a crash of the server
		sql:  "select drive_id, chunk_size from mediafs.open_drive($1, $2, $3)",
		args: []any{session.Token.Reveal(), s.chunkSize, time.Now().UnixNano()},
	})
	if err != nil {
		return nil, err
	}
	return drive, nil
}

// OpenDrive attaches a drive by its name. What the session may open the database decides, by its token.
func (s *Store) OpenDrive(ctx context.Context, session auth.Session, name blobstore.DriveName) (blobstore.Drive, error) {
	if err := check(session); err != nil {
		return nil, err
	}
	if session.Role != auth.RoleGuest && string(name) == string(session.User) {
		return s.Open(ctx, session)
	}
	if auth.UserID(name).Check() != nil { // as no drive is called
		return nil, translate(ctx, "open drive", blobstore.ErrNotExist)
	}
	drive, err := s.attach(ctx, session, name, statement{
		sql:  "select drive_id, chunk_size from mediafs.find_drive($1, $2)",
		args: []any{credential(session), string(name)},
	})
	switch {
	case err != nil:
		return nil, err
	case drive.guest:
		return blobstore.ReadOnly(drive), nil
	}
	return drive, nil
}

// MakeDrive is one round trip. The database decides, by the token, whether the session may.
func (s *Store) MakeDrive(ctx context.Context, session auth.Session, owner auth.UserID) error {
	const op = "make drive"
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	if owner == auth.UserID(blobstore.PublicDrive) || owner.Check() != nil {
		return translate(ctx, op, auth.ErrUserID)
	}
	_, err := s.pool.Exec(ctx, "select mediafs.make_drive($1, $2, $3, $4)", credential(session), string(owner), s.chunkSize, time.Now().UnixNano())
	if err != nil {
		return translate(ctx, op, err)
	}
	return nil
}

// Drives is one round trip for every thousand drives.
func (s *Store) Drives(ctx context.Context, session auth.Session, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	const op = "list drives"
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	for {
		rows, err := s.pool.Query(ctx, "select drive_id, name from mediafs.list_drives($1, $2, $3)", credential(session), int32(after), pageDrives)
		if err != nil {
			return translate(ctx, op, err)
		}
		page, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (info blobstore.DriveInfo, err error) {
			err = r.Scan(&info.ID, &info.Name)
			return info, err
		})
		if err != nil {
			return translate(ctx, op, err)
		}
		for _, info := range page {
			if !take(info) {
				return nil
			}
			after = info.ID
		}
		if len(page) < pageDrives {
			return nil
		}
	}
}

// Renew is one round trip. What runs meanwhile goes on with the session it began with.
func (d *Drive) Renew(ctx context.Context, session auth.Session) error {
	now := d.session.Load()
	if session.User != now.User || session.Role != now.Role {
		return fmt.Errorf("pgstore: renew the session: %w", auth.ErrRevoked)
	}
	if d.guest {
		return nil
	}
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	proven, err := d.store.Authenticate(ctx, session.Token)
	switch {
	case err != nil && isSessionEnd(err), err == nil && (proven.User != now.User || proven.Role != now.Role):
		return fmt.Errorf("pgstore: renew the session: %w", errors.Join(auth.ErrRevoked, err))
	case err != nil:
		return translate(ctx, "renew the session", err)
	}
	d.session.Store(&session)
	for _, b := range d.pendingBlobs() {
		b.storeInBackground(everything)
	}
	return nil
}
