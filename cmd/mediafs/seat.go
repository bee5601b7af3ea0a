package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
)

// A seat is a session that a mount is served with, and the drives that are open with it: they stop and go on together.
type seat struct {
	store blobstore.Store

	mu      sync.Mutex   // guards the rest
	session auth.Session // zero: nobody has signed in yet
	ended   error        // how the session has ended, or why there is none; nil: it lasts
	drives  map[*seatDrive]struct{}
}

func newSeat(store blobstore.Store, session auth.Session) *seat {
	return &seat{store: store, session: session, drives: make(map[*seatDrive]struct{})}
}

// state is the session and how it has ended.
func (s *seat) state() (auth.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session, s.ended
}

// status is how the session is.
func (s *seat) status() sessionStatus {
	session, ended := s.state()
	status := sessionStatus{Role: string(session.Role), User: string(session.User)}
	if !session.Expires.IsZero() {
		status.Expires = &session.Expires
	}
	if ended != nil {
		status.Ended = oneLine(ended.Error())
	}
	return status
}

// openOwn opens the drive of the session's user; a guest's is the public one.
func (s *seat) openOwn(ctx context.Context) (blobstore.Drive, error) {
	return s.open(ctx, func(session auth.Session) (blobstore.Drive, error) { return s.store.Open(ctx, session) })
}

// openNamed opens a drive of an admin's by its name.
func (s *seat) openNamed(ctx context.Context, name blobstore.DriveName) (blobstore.Drive, error) {
	return s.open(ctx, func(session auth.Session) (blobstore.Drive, error) { return s.store.OpenDrive(ctx, session, name) })
}

func (s *seat) open(ctx context.Context, open func(auth.Session) (blobstore.Drive, error)) (blobstore.Drive, error) {
	session, ended := s.state()
	if ended != nil {
		return nil, ended
	}
	drive, err := open(session)
	if err != nil {
		return nil, err
	}
	d := &seatDrive{Drive: drive, seat: s}
	s.mu.Lock()
	s.drives[d] = struct{}{}
	now := s.session
	s.mu.Unlock()
	if now.Token != session.Token { // renewed meanwhile
		if err := d.Renew(ctx, now); err != nil {
			return nil, errors.Join(err, d.Close(ctx))
		}
	}
	return d, nil
}

// opened are the drives that are open now.
func (s *seat) opened() []*seatDrive {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*seatDrive, 0, len(s.drives))
	for d := range s.drives {
		list = append(list, d)
	}
	return list
}

// end notes how the session has ended. No more drives are opened.
func (s *seat) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = reason
}

// goOn has all drives go on with a session, the one before or a new one.
func (s *seat) goOn(ctx context.Context, session auth.Session) error {
	before, _ := s.state()
	if session.Token != before.Token {
		for _, d := range s.opened() {
			if err := d.Renew(ctx, session); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.ended = session, nil
	return nil
}

// preserve puts on this machine's disk what is written and can't be stored now.
func (s *seat) preserve(ctx context.Context) error {
	var errs []error
	for _, d := range s.opened() {
		if d.PendingBytes() > 0 {
			errs = append(errs, d.Preserve(ctx))
		}
	}
	return errors.Join(errs...)
}

// pendingBytes is how much is written and not yet stored; false: the store keeps nothing back.
func (s *seat) pendingBytes() (n int64, known bool) {
	for _, d := range s.opened() {
		if _, ok := d.Drive.(blobstore.Preserver); ok {
			n, known = n+d.PendingBytes(), true
		}
	}
	return n, known
}

// remaining is how many seconds the session has left, +Inf if it never ends; false: it has ended, or nobody has signed in.
func (s *seat) remaining(now time.Time) (seconds float64, lasts bool) {
	session, ended := s.state()
	switch {
	case ended != nil:
		return 0, false
	case session.Expires.IsZero():
		return math.Inf(1), true
	}
	return max(session.Expires.Sub(now).Seconds(), 0), true
}

// close closes the drives that are still open.
func (s *seat) close(ctx context.Context) error {
	var errs []error
	for _, d := range s.opened() {
		errs = append(errs, d.Close(ctx))
	}
	return errors.Join(errs...)
}

// A seatDrive is a drive that is open with the session of a seat.
type seatDrive struct {
	blobstore.Drive
	seat *seat
	once sync.Once
	err  error // of closing; set by once
}

// Close closes the drive. Closing it once more does nothing.
func (d *seatDrive) Close(ctx context.Context) error {
	d.once.Do(func() {
		d.err = d.Drive.Close(ctx)
		d.seat.mu.Lock()
		defer d.seat.mu.Unlock()
		delete(d.seat.drives, d)
	})
	return d.err
}

// Unwrap is the drive itself: see blobstore.LockerOf.
func (d *seatDrive) Unwrap() blobstore.Drive { return d.Drive }

var _ blobstore.Preserver = (*seatDrive)(nil)

// PendingBytes is 0 for a drive that keeps nothing back.
func (d *seatDrive) PendingBytes() int64 {
	if p, ok := d.Drive.(blobstore.Preserver); ok {
		return p.PendingBytes()
	}
	return 0
}

// Preserve does nothing for a drive that keeps nothing back.
func (d *seatDrive) Preserve(ctx context.Context) error {
	if p, ok := d.Drive.(blobstore.Preserver); ok {
		return p.Preserve(ctx)
	}
	return nil
}
