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
	watchInterval = 2 * time.Second // between two looks at the session
	watchDeadline = 2 * time.Second // of one look; together they are how long an ended session goes unnoticed
	watchTrust    = 5 * time.Minute // how long the last answer holds when there is none
)

// suspended is a mount, as far as its session goes.
type suspended interface {
	Suspend(error)
	Resume()
}

// A sessionWatch asks all the while that a drive is mounted whether its session lasts. When it has ended, the mount answers nothing any
// more; what is pending is kept, and the mount goes on if the session comes back.
type sessionWatch struct {
	session       auth.Session
	authenticator auth.Authenticator
	mount         suspended
	logger        *slog.Logger

	trusted time.Time // the last good answer
	ended   error     // why the mount is suspended; nil: it is not
}

// start watches until stop is called, which waits for the end of it.
func (w *sessionWatch) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w.trusted = time.Now()
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
	ctx, cancel := context.WithTimeout(ctx, watchDeadline)
	defer cancel()
	now, err := w.authenticator.Authenticate(ctx, w.session.Token)
	if err == nil && now.User != w.session.User {
		err = auth.ErrRevoked
	}
	switch reason := sessionEnd(err); {
	case err == nil:
		w.session, w.trusted = now, time.Now()
		w.goOn()
	case reason != nil:
		w.end(reason)
	case w.session.Check(time.Now()) != nil:
		w.end(auth.ErrExpired) // by its own word
	case time.Since(w.trusted) > watchTrust:
		w.end(fmt.Errorf("%w: nobody could say for %v whether it lasts: %w", auth.ErrExpired, watchTrust, err))
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
	if w.ended != nil {
		return
	}
	w.ended = reason
	w.logger.Warn("the session has ended: the drive answers nothing until it is back or unmounted", "reason", reason)
	w.mount.Suspend(reason)
}

func (w *sessionWatch) goOn() {
	if w.ended == nil {
		return
	}
	w.ended = nil
	w.logger.Info("the session is back")
	w.mount.Resume()
}
