package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// attached is a mount, as far as ending it goes.
type attached interface {
	Done() <-chan struct{}
	Unmount(context.Context) error
}

// drained is a drive, as far as ending it goes.
type drained interface {
	Close(context.Context) error
}

// A lifecycle waits for the end of a mount and sees to it that everything is stored then.
type lifecycle struct {
	mount    attached
	drive    drained
	requests <-chan chan<- error // to unmount; each gets the outcome if the mount stays
	signals  <-chan os.Signal    // the first is a request to unmount and exit; the second, to exit at once
	drain    time.Duration       // how long storing and unmounting may take, each
	logger   *slog.Logger

	signalled bool
}

// errInterrupted is a second signal.
var errInterrupted = &failure{code: exitInterrupted, what: "mount", why: errors.New("ended by a second signal: what was not stored is lost"),
	way: "run `mediafs umount` on the mountpoint if it is still there"}

// run returns when the drive is unmounted and closed; or after a signal when that can't be done in time; or at once after a
// second signal. The error says what could not be stored.
func (l *lifecycle) run() error {
	err := l.serve()
	if !l.down() {
		return err
	}
	if err != nil {
		err = notStored(err)
	}
	closed := l.start(l.drive.Close)
	for {
		select {
		case closing := <-closed:
			if closing != nil {
				err = errors.Join(err, notStored(closing))
			}
			return err
		case signal := <-l.signals:
			if l.signal(signal) {
				return errInterrupted
			}
		}
	}
}

func notStored(err error) error {
	return &failure{code: exitNotStored, what: "not everything could be stored", why: err, way: "see the log for the files"}
}

// serve returns when the drive is no longer mounted, or when the program is to exit all the same.
func (l *lifecycle) serve() error {
	var unmounting <-chan error // nil: not asked for
	var waiting []chan<- error  // for the outcome
	for {
		select {
		case <-l.mount.Done():
			if unmounting == nil {
				l.logger.Info("unmounted from outside: storing what is pending")
				return nil
			}
			return <-unmounting
		case outcome := <-l.requests:
			waiting = append(waiting, outcome)
			if unmounting == nil {
				unmounting = l.start(l.mount.Unmount)
			}
		case signal := <-l.signals:
			if l.signal(signal) {
				return errInterrupted
			}
			if unmounting == nil {
				unmounting = l.start(l.mount.Unmount)
			}
		case err := <-unmounting:
			if l.down() {
				return err
			}
			err = &failure{code: exitMountpoint, what: "the drive is still in use", why: err, way: "end the programs that use it"}
			if l.signalled {
				return err
			}
			l.logger.Warn("could not unmount", "error", err)
			for _, outcome := range waiting {
				outcome <- err
			}
			unmounting, waiting = nil, nil
		}
	}
}

// start does something that may take l.drain.
func (l *lifecycle) start(do func(context.Context) error) <-chan error {
	done := make(chan error, 1)
	go func() { // whoever called waits for it, but after a second signal
		ctx, cancel := context.WithTimeoutCause(context.Background(), l.drain, fmt.Errorf("not done in %v", l.drain))
		defer cancel()
		done <- do(ctx)
	}()
	return done
}

// signal takes a signal and says whether it is the second.
func (l *lifecycle) signal(signal os.Signal) (second bool) {
	if !l.signalled {
		l.logger.Info("storing what is pending and unmounting; a second signal ends this at once", "signal", signal.String())
	}
	second, l.signalled = l.signalled, true
	return second
}

func (l *lifecycle) down() bool {
	select {
	case <-l.mount.Done():
		return true
	default:
		return false
	}
}
