package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"mediafs/auth"
)

// answers is an authenticator that says what it is told to, and a mount that remembers what it was told.
type answers struct {
	session   auth.Session
	err       error
	suspended error
}

func (a *answers) Authenticate(context.Context, auth.Token) (auth.Session, error) {
	return a.session, a.err
}
func (a *answers) Suspend(err error) { a.suspended = err }
func (a *answers) Resume()           { a.suspended = nil }

func TestTheEndOfASessionSuspendsTheMountUntilItIsBack(t *testing.T) {
	anna := auth.Session{User: "anna", Role: auth.RoleUser}
	away := errors.New("no answer")
	for _, test := range []struct {
		what    string
		session auth.Session // that the mount has
		answer  auth.Session
		err     error
		trusted time.Duration // since the last good answer
		want    error
	}{
		{"it lasts", anna, anna, nil, 0, nil},
		{"it has expired", anna, auth.Session{}, auth.ErrExpired, 0, auth.ErrExpired},
		{"it was ended", anna, auth.Session{}, auth.ErrRevoked, 0, auth.ErrRevoked},
		{"it is not known any more", anna, auth.Session{}, auth.ErrInvalid, 0, auth.ErrRevoked},
		{"the user is banned", anna, auth.Session{}, auth.ErrBanned, 0, auth.ErrBanned},
		{"it is somebody else's now", anna, auth.Session{User: "ben", Role: auth.RoleUser}, nil, 0, auth.ErrRevoked},
		{"nobody answers for a while", anna, auth.Session{}, away, time.Minute, nil},
		{"nobody answers for too long", anna, auth.Session{}, away, watchTrust + time.Second, auth.ErrExpired},
		{"nobody answers, and its time is over", auth.Session{User: "anna", Role: auth.RoleUser, Expires: time.Now().Add(-time.Second)},
			auth.Session{}, away, time.Minute, auth.ErrExpired},
	} {
		a := &answers{session: test.answer, err: test.err}
		w := &sessionWatch{session: test.session, authenticator: a, mount: a, logger: slog.New(slog.DiscardHandler), trusted: time.Now().Add(-test.trusted)}
		w.look(t.Context())
		if !errors.Is(a.suspended, test.want) || (a.suspended == nil) != (test.want == nil) {
			t.Errorf("%s: got suspended by %v, want %v", test.what, a.suspended, test.want)
		}
		a.session, a.err = anna, nil
		w.look(t.Context())
		if a.suspended != nil {
			t.Errorf("%s, and then it is back: got suspended by %v", test.what, a.suspended)
		}
	}
}
