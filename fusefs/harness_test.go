package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/memstore"
)

// patience is how long a test waits for what must come; it is only ever used up by a failure.
const patience = 30 * time.Second

// needFuse skips the test on a machine without FUSE, and fails it in CI, where there must be one.
func needFuse(t testing.TB) {
	t.Helper()
	if err := checkMounter(os.Geteuid() == 0); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// needRoot is needFuse for a test that also acts as other users.
func needRoot(t testing.TB) {
	t.Helper()
	needFuse(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
}

// newDrive opens an empty drive in memory.
func newDrive(t testing.TB) blobstore.Drive {
	t.Helper()
	drive, err := memstore.New().Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	return drive
}

// mount mounts a drive until the test ends, and returns the folder it is in.
func mount(t testing.TB, drive blobstore.Drive, o Options) (*Mount, string) {
	t.Helper()
	needFuse(t)
	o.Mountpoint = filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(o.Mountpoint, 0o755); err != nil {
		t.Fatal(err)
	}
	if o.FSName == "" {
		o.FSName = "mediafs:alice"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := New(drive, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, m) })
	return m, o.Mountpoint
}

func unmount(t testing.TB, m *Mount) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Errorf("unmount: %v", err)
	}
}

// wantErr checks that an error is what it should be; nil wants none.
func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// must fails the test at once on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon waits for a channel.
func soon[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}
