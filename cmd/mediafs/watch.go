package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mediafs/auth"
)

const (
	watchInterval = 2 * time.Second  // between two looks at the session
	watchDeadline = 2 * time.Second  // of one look; together they are how long an ended session goes unnoticed
	watchTrust    = 5 * time.Minute  // how long the last answer holds when there is none
	keepDeadline  = 30 * time.Second // for putting aside what is pending
)

// suspended is what a session is the condition of, as far as that goes: a mount, or one drive in it.
type suspended interface {
	Suspend(error)
	Resume()
}

// A sessionWatch asks all the while that a seat's drives are mounted whether its session lasts. When it has ended, they answer nothing
// any more; what is pending is put aside, and they go on when the session is back, or with a new token of the same user in the
// token file.
type sessionWatch struct {
	seat          *seat
	source        tokenSource
	authenticator auth.Authenticator
	mount         suspended
	logger        *slog.Logger

	trusted time.Time // the last good answer
	version string    // of the token source when it was last read
	warned  string    // what was last said of the token source
	unkept  bool      // what is pending could not all be put aside
	kept    int64     // bytes that were pending when all was
}

// start watches until stop is called, which waits for the end of it.
func (w *sessionWatch) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w.trusted = time.Now()
	w.version = w.source.version()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				w.look(ctx)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// look asks once.
func (w *sessionWatch) look(ctx context.Context) {
	session, _ := w.seat.state()
	if !session.Token.IsZero() {
		w.ask(ctx, session)
	}
	if version := w.source.version(); version != w.version || session.Token.IsZero() {
		w.version = version
		w.takeUp(ctx)
	}
	if _, ended := w.seat.state(); ended != nil {
		w.keep(ctx)
	}
}

// ask asks whether the session lasts.
func (w *sessionWatch) ask(ctx context.Context, session auth.Session) {
	ctx, cancel := context.WithTimeout(ctx, watchDeadline)
	defer cancel()
	now, err := w.authenticator.Authenticate(ctx, session.Token)
	if err == nil && (now.User != session.User || now.Role != session.Role) {
		err = auth.ErrRevoked
	}
	switch reason := sessionEnd(err); {
	case err == nil:
		w.trusted = time.Now()
		w.goOn(ctx, now)
	case reason != nil:
		w.end(reason)
	case session.Check(time.Now()) != nil:
		w.end(auth.ErrExpired) // by its own word
	case time.Since(w.trusted) > watchTrust:
		w.end(fmt.Errorf("%w: nobody could say for %v whether it lasts: %w", auth.ErrExpired, watchTrust, err))
	}
}

// takeUp goes on with the token that the source has now, if it is another one and good.
func (w *sessionWatch) takeUp(ctx context.Context) {
	session, _ := w.seat.state()
	token, err := w.source.read()
	if err != nil {
		w.warn("the new token can't be read", err)
		return
	}
	if token == session.Token {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, watchDeadline)
	defer cancel()
	now, err := w.authenticator.Authenticate(ctx, token)
	switch {
	case err != nil && sessionEnd(err) == nil: // nobody could say
		w.version = ""
		fallthrough
	case err != nil:
		w.warn("the new token is not good", err)
	case !session.Token.IsZero() && (now.User != session.User || now.Role != session.Role):
		w.warn("the new token is not good", fmt.Errorf("it is of %s (%s), and this was mounted by %s (%s)", now.User, now.Role, session.User, session.Role))
	default:
		w.trusted = time.Now()
		w.goOn(ctx, now)
	}
}

// warn says once what is wrong with the token source.
func (w *sessionWatch) warn(what string, err error) {
	if said := what + err.Error(); said != w.warned {
		w.warned = said
		w.logger.Warn(what, "error", err)
	}
}

// sessionEnd is the way in which an error says that a session has ended; nil: it says something else.
func sessionEnd(err error) error {
	for _, end := range []error{auth.ErrExpired, auth.ErrRevoked, auth.ErrBanned} {
		if errors.Is(err, end) {
			return end
		}
	}
	if errors.Is(err, auth.ErrInvalid) {
		return auth.ErrRevoked // it was known before
	}
	return nil
}

func (w *sessionWatch) end(reason error) {
	if _, ended := w.seat.state(); ended != nil {
		return
	}
	w.seat.end(reason)
	w.unkept, w.kept = true, 0
	w.logger.Warn("the session has ended: nothing is answered until it is back, there is a new token, or this is unmounted", "reason", reason)
	w.mount.Suspend(reason)
}

func (w *sessionWatch) goOn(ctx context.Context, session auth.Session) {
	before, ended := w.seat.state()
	if ended == nil && session == before {
		return
	}
	if err := w.seat.goOn(ctx, session); err != nil {
		w.warn("the drives can't go on with the new token", err)
		w.version = "" // try again
		return
	}
	w.warned = ""
	if ended != nil {
		w.logger.Info("the session is back", "user", session.User)
		w.mount.Resume()
	} else if session.Token != before.Token {
		w.logger.Info("going on with a new token")
	}
}

// keep puts aside what is pending while the session has ended, so that not even the end of this program loses it.
func (w *sessionWatch) keep(ctx context.Context) {
	pending, _ := w.seat.pendingBytes()
	if pending == 0 || !w.unkept && pending == w.kept {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keepDeadline)
	defer cancel()
	if err := w.seat.preserve(ctx); err != nil {
		w.warn("what is not stored yet can't be put aside on disk: it is in memory alone", err)
		return
	}
	w.unkept, w.kept = false, pending
	w.logger.Info("what is not stored yet was put aside on disk", "bytes", pending)
}
