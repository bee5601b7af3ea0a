package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// serve answers for a mount until the test ends.
func serve(t *testing.T, folder string, status mountStatus) *controlServer {
	t.Helper()
	s, err := serveControl(folder, func() mountStatus { return status }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(t *testing.T, s *controlServer, why error) {
	t.Helper()
	if err := s.close(t.Context(), why); err != nil {
		t.Error(err)
	}
}

// onlyMount is the one mount that is found.
func onlyMount(t *testing.T, folder string) (*mountClient, mountStatus) {
	t.Helper()
	found, err := findMounts(t.Context(), folder)
	if err != nil || len(found) != 1 {
		t.Fatalf("got %v, %v, want one mount", found, err)
	}
	for client, status := range found {
		return client, status
	}
	panic("unreachable")
}

func TestAMountTellsHowItIs(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	folder := t.TempDir()
	expires, pending := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), int64(12345)
	want := mountStatus{Drive: "anna", Mountpoint: "/mnt/a b", Store: "postgres://h/d", sessionStatus: sessionStatus{Expires: &expires}, PendingBytes: &pending, OpenFiles: 3, Errors: 4, PID: 5, Notes: []string{"a note"}}
	s := serve(t, folder, want)
	defer stop(t, s, nil)
	_, got := onlyMount(t, folder)
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !bytes.Equal(g, w) {
		t.Errorf("got %s, want %s", g, w)
	}
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestUnmountReturnsWhatCameOfIt(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	folder := t.TempDir()
	s := serve(t, folder, mountStatus{Mountpoint: "/mnt"})
	client, _ := onlyMount(t, folder)
	ask := func() <-chan error {
		result := make(chan error, 1)
		go func() { result <- client.unmount(t.Context()) }()
		return result
	}

	refused := ask()
	outcome := <-s.unmount
	outcome <- &failure{code: exitMountpoint, what: "drive", why: errors.New("in\nuse")}
	wantCode(t, <-refused, exitMountpoint, "drive: in; use")

	accepted := ask()
	<-s.unmount
	stop(t, s, nil)
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("the socket is left over: %v, %v", entries, err)
	}
	if err := client.unmount(t.Context()); !errors.Is(err, errDead) {
		t.Errorf("afterwards: got %v, want errDead", err)
	}
}

func TestUnmountTellsWhatCouldNotBeStored(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	folder := t.TempDir()
	s := serve(t, folder, mountStatus{})
	client, _ := onlyMount(t, folder)
	result := make(chan error, 1)
	go func() { result <- client.unmount(t.Context()) }()
	<-s.unmount
	stop(t, s, notStored(errors.New("photo.jpg is lost")))
	wantCode(t, <-result, exitNotStored, "photo.jpg is lost")
}

func TestSocketsOfDeadProcessesAreTakenAway(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	folder := t.TempDir()
	dead := filepath.Join(folder, "1-dead"+socketSuffix)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	kept := filepath.Join(folder, "mount-1.log")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, folder, mountStatus{Drive: "bob"})
	defer stop(t, s, nil)
	if _, got := onlyMount(t, folder); got.Drive != "bob" {
		t.Errorf("got %+v, want bob's", got)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead socket: got %v", err)
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
}

func TestAMountThatAnswersNonsenseIsListedWithItsProcess(t *testing.T) {
	folder := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(folder, "4711-0"+socketSuffix))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Read(make([]byte, 4096)) // the request
			_, _ = conn.Write([]byte("hello\n"))
			conn.Close()
		}
	}()
	_, got := onlyMount(t, folder)
	if got.PID != 4711 || !strings.Contains(got.Problem, "does not answer") {
		t.Errorf("got %+v", got)
	}
	listener.Close()
	<-answered
}

func TestARuntimeFolderWithALongPathIsAClearError(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := serveControl(folder, nil, slog.New(slog.DiscardHandler))
	wantCode(t, err, exitFailed, folder, "too long", "MEDIAFS_RUNTIME_DIR")
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("something is left over: %v, %v", entries, err)
	}
}

func TestAFolderWithStarsInItsNameIsNotAPattern(t *testing.T) {
	parent := t.TempDir()
	for _, name := range []string{"a", "*"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, filepath.Join(parent, "a"), mountStatus{})
	defer stop(t, s, nil)
	if found, err := findMounts(t.Context(), filepath.Join(parent, "*")); err != nil || len(found) != 0 {
		t.Errorf("got %v, %v, want nothing", found, err)
	}
}
