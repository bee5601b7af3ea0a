package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeMount is a mount that is unmounted as the test says.
type fakeMount struct {
	done     chan struct{}
	asked    chan struct{} // gets one for each Unmount
	unmount  func(context.Context, *fakeMount) error
	unmounts int // guarded by being called once at a time
}

func newFakeMount(unmount func(context.Context, *fakeMount) error) *fakeMount {
	return &fakeMount{done: make(chan struct{}), asked: make(chan struct{}, 10), unmount: unmount}
}

func (m *fakeMount) Done() <-chan struct{} { return m.done }

func (m *fakeMount) Unmount(ctx context.Context) error {
	m.unmounts++
	m.asked <- struct{}{}
	return m.unmount(ctx, m)
}

// goDown unmounts with an outcome.
func goDown(err error) func(context.Context, *fakeMount) error {
	return func(_ context.Context, m *fakeMount) error {
		close(m.done)
		return err
	}
}

// fakeDrive is a drive that only closes.
type fakeDrive struct {
	closed int
	close  func(context.Context) error
}

func (d *fakeDrive) Close(ctx context.Context) error {
	d.closed++
	if d.close == nil {
		return nil
	}
	return d.close(ctx)
}

// life runs a lifecycle and returns what ends it and its outcome.
func life(t *testing.T, m *fakeMount, d *fakeDrive, drain time.Duration) (requests chan chan<- error, signals chan os.Signal, outcome func() error) {
	t.Helper()
	requests, signals = make(chan chan<- error), make(chan os.Signal, 2)
	l := &lifecycle{mount: m, drive: d, requests: requests, signals: signals, drain: drain, logger: slog.New(slog.DiscardHandler)}
	var err error
	var ran sync.WaitGroup
	ran.Go(func() { err = l.run() })
	return requests, signals, func() error { ran.Wait(); return err }
}

func wantCode(t *testing.T, err error, code exitCode, words ...string) {
	t.Helper()
	var f *failure
	if !errors.As(err, &f) || f.code != code {
		t.Fatalf("got %v, want exit code %d", err, code)
	}
	for _, word := range words {
		if !strings.Contains(f.Error(), word) {
			t.Errorf("got %q, want %q in it", f, word)
		}
	}
}

func TestASignalUnmountsAndClosesTheDrive(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		m, d := newFakeMount(goDown(nil)), &fakeDrive{}
		_, signals, outcome := life(t, m, d, time.Minute)
		signals <- signal
		if err := outcome(); err != nil || m.unmounts != 1 || d.closed != 1 {
			t.Errorf("%v: got %v, %d unmounts and %d closes, want one of each", signal, err, m.unmounts, d.closed)
		}
	}
}

func TestUnmountingFromOutsideClosesTheDrive(t *testing.T) {
	m, d := newFakeMount(goDown(nil)), &fakeDrive{}
	_, _, outcome := life(t, m, d, time.Minute)
	close(m.done)
	if err := outcome(); err != nil || m.unmounts != 0 || d.closed != 1 {
		t.Errorf("got %v, %d unmounts and %d closes, want the drive closed alone", err, m.unmounts, d.closed)
	}
}

func TestWhatCannotBeStoredIsExitCode10(t *testing.T) {
	lost := errors.New("photo.jpg is lost")
	for what, c := range map[string]struct {
		mount *fakeMount
		drive *fakeDrive
	}{
		"by the mount": {newFakeMount(goDown(lost)), &fakeDrive{}},
		"by the drive": {newFakeMount(goDown(nil)), &fakeDrive{close: func(context.Context) error { return lost }}},
	} {
		_, signals, outcome := life(t, c.mount, c.drive, time.Minute)
		signals <- syscall.SIGTERM
		err := outcome()
		wantCode(t, err, exitNotStored, "photo.jpg is lost")
		if !errors.Is(err, lost) || c.drive.closed != 1 {
			t.Errorf("%s: got %v and %d closes", what, err, c.drive.closed)
		}
	}
}

func TestASecondSignalEndsItAtOnce(t *testing.T) {
	release := make(chan struct{})
	m, d := newFakeMount(func(context.Context, *fakeMount) error { <-release; return nil }), &fakeDrive{}
	_, signals, outcome := life(t, m, d, time.Minute)
	signals <- syscall.SIGTERM
	<-m.asked
	signals <- syscall.SIGTERM
	wantCode(t, outcome(), exitInterrupted, "second signal", "mediafs umount")
	close(release)
	if d.closed != 0 {
		t.Error("the drive was closed under a mount that is served")
	}
}

func TestASecondSignalEndsClosingTheDriveToo(t *testing.T) {
	closing, release := make(chan struct{}), make(chan struct{})
	m := newFakeMount(goDown(nil))
	d := &fakeDrive{close: func(context.Context) error { close(closing); <-release; return nil }}
	_, signals, outcome := life(t, m, d, time.Minute)
	signals <- syscall.SIGTERM
	<-closing
	signals <- syscall.SIGINT
	wantCode(t, outcome(), exitInterrupted)
	close(release)
}

func TestARequestThatFindsTheDriveInUseLeavesItMounted(t *testing.T) {
	inUse := errors.New("files in it are still open")
	first := true
	m := newFakeMount(func(ctx context.Context, m *fakeMount) error {
		if first {
			first = false
			<-ctx.Done() // a deadline of no time at all
			return inUse
		}
		return goDown(nil)(ctx, m)
	})
	d := &fakeDrive{}
	requests, _, outcome := life(t, m, d, time.Nanosecond)
	answer := make(chan error, 1)
	requests <- answer
	err := <-answer
	wantCode(t, err, exitMountpoint, "still in use", "files in it are still open", "end the programs that use it")
	if d.closed != 0 {
		t.Error("the drive was closed under a mount that is served")
	}
	requests <- answer
	if err := outcome(); err != nil || d.closed != 1 {
		t.Errorf("got %v and %d closes, want the drive unmounted and closed", err, d.closed)
	}
}

func TestASignalEndsADriveThatStaysInUseWithExitCode8(t *testing.T) {
	m := newFakeMount(func(ctx context.Context, _ *fakeMount) error { <-ctx.Done(); return context.Cause(ctx) })
	_, signals, outcome := life(t, m, &fakeDrive{}, time.Nanosecond)
	signals <- syscall.SIGTERM
	wantCode(t, outcome(), exitMountpoint, "not done in 1ns")
}

func TestARequestAndASignalUnmountOnce(t *testing.T) {
	release := make(chan struct{})
	m := newFakeMount(func(ctx context.Context, m *fakeMount) error { <-release; return goDown(nil)(ctx, m) })
	requests, signals, outcome := life(t, m, &fakeDrive{}, time.Minute)
	requests <- make(chan error, 1)
	<-m.asked
	signals <- syscall.SIGTERM
	requests <- make(chan error, 1) // taken when the signal was, or is about to be
	close(release)
	if err := outcome(); err != nil || m.unmounts != 1 {
		t.Errorf("got %v and %d unmounts, want one", err, m.unmounts)
	}
}
