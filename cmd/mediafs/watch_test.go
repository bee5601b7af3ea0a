package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

// answers is an authenticator that says what it is told to of each token, a file with a token, and a mount that remembers what
// it was told.
type answers struct {
	of        map[auth.Token]verdict
	token     auth.Token // in the file
	changes   string     // the version of the file
	suspended error
}

type verdict struct {
	session auth.Session
	err     error
}

func (a *answers) Authenticate(_ context.Context, token auth.Token) (auth.Session, error) {
	if answer, ok := a.of[token]; ok {
		answer.session.Token = token
		return answer.session, answer.err
	}
	return auth.Session{}, auth.ErrInvalid
}
func (a *answers) Suspend(err error)         { a.suspended = err }
func (a *answers) Resume()                   { a.suspended = nil }
func (a *answers) version() string           { return a.changes }
func (a *answers) read() (auth.Token, error) { return a.token, nil }

// watchOf is a watch of a session that has a drive open.
func watchOf(t *testing.T, a *answers, session auth.Session) *sessionWatch {
	t.Helper()
	s := newSeat(memstore.New(), session)
	if _, err := s.openOwn(t.Context()); err != nil && session.Check(time.Now()) == nil {
		t.Fatal(err)
	}
	return &sessionWatch{seat: s, source: a, authenticator: a, mount: a, logger: slog.New(slog.DiscardHandler), trusted: time.Now()}
}

func TestTheEndOfASessionSuspendsTheMountUntilItIsBack(t *testing.T) {
	anna := auth.Session{User: "anna", Role: auth.RoleUser, Token: auth.NewToken()}
	over := anna
	over.Expires = time.Now().Add(-time.Second)
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
		{"the user is an admin now", anna, auth.Session{User: "anna", Role: auth.RoleAdmin}, nil, 0, auth.ErrRevoked},
		{"nobody answers for a while", anna, auth.Session{}, away, time.Minute, nil},
		{"nobody answers for too long", anna, auth.Session{}, away, watchTrust + time.Second, auth.ErrExpired},
		{"nobody answers, and its time is over", over, auth.Session{}, away, time.Minute, auth.ErrExpired},
	} {
		a := &answers{of: map[auth.Token]verdict{anna.Token: {test.answer, test.err}}}
		w := watchOf(t, a, test.session)
		w.trusted = time.Now().Add(-test.trusted)
		w.look(t.Context())
		if !errors.Is(a.suspended, test.want) || (a.suspended == nil) != (test.want == nil) {
			t.Errorf("%s: got suspended by %v, want %v", test.what, a.suspended, test.want)
		}
		if _, err := w.seat.openOwn(t.Context()); test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: opening a drive: got %v, want %v", test.what, err, test.want)
		}
		a.of[anna.Token] = verdict{anna, nil}
		w.look(t.Context())
		if a.suspended != nil {
			t.Errorf("%s, and then it is back: got suspended by %v", test.what, a.suspended)
		}
		if _, err := w.seat.openOwn(t.Context()); err != nil {
			t.Errorf("%s, and then it is back: opening a drive: %v", test.what, err)
		}
	}
}

func TestANewTokenInTheFileOfTheSameUserIsTakenUp(t *testing.T) {
	token := auth.NewToken()
	anna := auth.Session{User: "anna", Role: auth.RoleUser, Token: auth.NewToken()}
	for _, test := range []struct {
		what  string
		ended error
		is    verdict
		want  error // what the mount is suspended by afterwards
		taken bool
	}{
		{"while the session lasts", nil, verdict{session: anna}, nil, true},
		{"when it has ended", auth.ErrExpired, verdict{session: anna}, nil, true},
		{"of another user", auth.ErrExpired, verdict{session: auth.Session{User: "ben", Role: auth.RoleUser}}, auth.ErrExpired, false},
		{"of another user while the session lasts", nil, verdict{session: auth.Session{User: "ben", Role: auth.RoleUser}}, nil, false},
		{"of another role", auth.ErrExpired, verdict{session: auth.Session{User: "anna", Role: auth.RoleAdmin}}, auth.ErrExpired, false},
		{"that is not known", auth.ErrExpired, verdict{err: auth.ErrInvalid}, auth.ErrExpired, false},
		{"that has ended too", auth.ErrExpired, verdict{err: auth.ErrBanned}, auth.ErrExpired, false},
	} {
		a := &answers{of: map[auth.Token]verdict{anna.Token: {anna, test.ended}, token: test.is}, token: anna.Token}
		w := watchOf(t, a, anna)
		w.look(t.Context())
		a.token, a.changes = token, "another"
		w.look(t.Context())
		if !errors.Is(a.suspended, test.want) || (a.suspended == nil) != (test.want == nil) {
			t.Errorf("a token %s: got suspended by %v, want %v", test.what, a.suspended, test.want)
		}
		if session, _ := w.seat.state(); (session.Token == token) != test.taken || session.User != "anna" {
			t.Errorf("a token %s: taken up is %v, want %v", test.what, session.Token == token, test.taken)
		}
	}
}

func TestANewTokenThatNobodyCanCheckIsTakenUpLater(t *testing.T) {
	token := auth.NewToken()
	anna := auth.Session{User: "anna", Role: auth.RoleUser, Token: auth.NewToken()}
	a := &answers{of: map[auth.Token]verdict{anna.Token: {err: auth.ErrExpired}, token: {err: errors.New("no answer")}}, token: token, changes: "another"}
	w := watchOf(t, a, anna)
	w.look(t.Context())
	if !errors.Is(a.suspended, auth.ErrExpired) {
		t.Errorf("got suspended by %v, want %v", a.suspended, auth.ErrExpired)
	}
	a.of[token] = verdict{session: anna}
	w.look(t.Context())
	if a.suspended != nil {
		t.Errorf("got suspended by %v", a.suspended)
	}
}

func TestWhoeverWasNotSignedInIsWhenThereIsAGoodToken(t *testing.T) {
	token := auth.NewToken()
	a := &answers{of: map[auth.Token]verdict{}, token: token}
	w := watchOf(t, a, auth.Session{})
	w.seat.end(auth.ErrRevoked)
	w.look(t.Context())
	if _, err := w.seat.openOwn(t.Context()); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("without a token: got %v, want %v", err, auth.ErrRevoked)
	}
	a.of[token] = verdict{session: auth.Session{User: "anna", Role: auth.RoleUser}}
	w.look(t.Context())
	if drive, err := w.seat.openOwn(t.Context()); err != nil {
		t.Error(err)
	} else if err := drive.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// pendingStore is a store of one drive with bytes that are not stored.
type pendingStore struct {
	blobstore.Store
	pending   int64
	preserved int
	err       error
}

func (s *pendingStore) Open(ctx context.Context, session auth.Session) (blobstore.Drive, error) {
	drive, err := s.Store.Open(ctx, session)
	return struct {
		blobstore.Drive
		blobstore.Preserver
	}{drive, preserver{s}}, err
}

type preserver struct{ *pendingStore }

func (p preserver) PendingBytes() int64 { return p.pending }
func (p preserver) Preserve(context.Context) error {
	p.preserved++
	return p.err
}

func TestWhatIsPendingWhenASessionEndsIsPutAsideOnceAndTriedAgainIfThatFails(t *testing.T) {
	anna := auth.Session{User: "anna", Role: auth.RoleUser, Token: auth.NewToken()}
	d := &pendingStore{Store: memstore.New(), pending: 4096, err: blobstore.ErrNoSpace}
	a := &answers{of: map[auth.Token]verdict{anna.Token: {err: auth.ErrExpired}}}
	w := &sessionWatch{seat: newSeat(d, anna), source: a, authenticator: a, mount: a, logger: slog.New(slog.DiscardHandler), trusted: time.Now()}
	if _, err := w.seat.openOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		change func()
		want   int
	}{
		{func() {}, 1},
		{func() {}, 2}, // the disk is full
		{func() { d.err = nil }, 3},
		{func() {}, 3},
		{func() { d.pending += 4096 }, 4}, // pages that the kernel had
		{func() {}, 4},
	} {
		step.change()
		w.look(t.Context())
		if d.preserved != step.want {
			t.Errorf("step %d: put aside %d times, want %d", i, d.preserved, step.want)
		}
	}
}
