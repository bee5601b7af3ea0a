package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/fusefs"
)

// adminDrives are all drives of a store, as an admin mounts them: one folder each, named by the owner's user id.
type adminDrives struct{ seat *seat }

var _ fusefs.Drives = adminDrives{}

// List implements fusefs.Drives.
func (d adminDrives) List(ctx context.Context, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	session, ended := d.seat.state()
	if ended != nil {
		return ended
	}
	return d.seat.store.Drives(ctx, session, after, take)
}

// Open implements fusefs.Drives.
func (d adminDrives) Open(ctx context.Context, name blobstore.DriveName) (fusefs.Shown, error) {
	drive, err := d.seat.openNamed(ctx, name)
	if err != nil {
		return fusefs.Shown{}, err
	}
	return fusefs.Shown{ID: drive.ID(), Drive: drive, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

// localDrives are the drives of users of this machine, one folder each, named by the user and theirs alone. A user's number is the
// place in the list, from 1 on.
type localDrives []*localDrive

// A localDrive is one user's.
type localDrive struct {
	localUser
	seat *seat
}

var _ fusefs.Drives = localDrives{}

// signInAll signs in the users of this machine. One who can't be has a folder that tells them so, until their token is good.
func signInAll(ctx context.Context, users []localUser, store blobstore.Store, authenticator auth.Authenticator, logger *slog.Logger) localDrives {
	drives := make(localDrives, len(users))
	for i, user := range users {
		drives[i] = &localDrive{user, newSeat(store, auth.Session{})}
		token, err := user.read()
		if err == nil {
			var session auth.Session
			if session, err = authenticator.Authenticate(ctx, token); err == nil {
				drives[i].seat.session = session
			}
		}
		if err != nil {
			logger.Warn("not signed in: the folder answers nothing until there is a good token", "user", user.name, "error", err)
			drives[i].seat.end(fmt.Errorf("%w: %w", auth.ErrRevoked, err))
		}
	}
	return drives
}

// List implements fusefs.Drives.
func (d localDrives) List(_ context.Context, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	for i := int(after); i < len(d); i++ {
		if !take(blobstore.DriveInfo{ID: blobstore.DriveID(i + 1), Name: blobstore.DriveName(d[i].name)}) {
			break
		}
	}
	return nil
}

// Open implements fusefs.Drives.
func (d localDrives) Open(ctx context.Context, name blobstore.DriveName) (fusefs.Shown, error) {
	for i, user := range d {
		if user.name != string(name) {
			continue
		}
		drive, err := user.seat.openOwn(ctx)
		if err != nil {
			return fusefs.Shown{}, err
		}
		return fusefs.Shown{ID: blobstore.DriveID(i + 1), Drive: drive, UID: user.uid, GID: user.gid, Keep: true}, nil
	}
	return fusefs.Shown{}, blobstore.ErrNotExist
}

// driveOf is one drive of a mount of many, as far as its session goes.
type driveOf struct {
	mount *fusefs.Mount
	id    blobstore.DriveID
}

func (d driveOf) Suspend(err error) { d.mount.SuspendDrive(d.id, err) }
func (d driveOf) Resume()           { d.mount.ResumeDrive(d.id) }
