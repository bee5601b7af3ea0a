package dirstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

const root = blobstore.RootIno

const readWrite = blobstore.OpenRead | blobstore.OpenWrite

// A bench is alice's drive and the folder behind it, where the test does what another program might.
type bench struct {
	*testing.T
	ctx   context.Context
	root  string // of the store
	dir   string // of alice's drive
	store *dirstore.Store
	drive blobstore.Drive
}

func newBench(t *testing.T, adjust ...func(*dirstore.Store)) *bench {
	t.Helper()
	media := filepath.Join(t.TempDir(), "media")
	if err := dirstore.Init(media); err != nil {
		t.Fatal(err)
	}
	return openBench(t, media, adjust...)
}

func openBench(t *testing.T, media string, adjust ...func(*dirstore.Store)) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	store := openStore(t, media)
	for _, a := range adjust {
		a(store)
	}
	drive, err := store.Open(ctx, session("alice"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if err := drive.Close(ctx); err != nil {
			t.Error(err)
		}
		closeStore(t, store)
	})
	return &bench{t, ctx, media, filepath.Join(media, "alice"), store, drive}
}

func (b *bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) gives(err, want error, what string) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func (b *bench) newNode(mode uint32) blobstore.NewNode {
	uid, gid := b.drive.Owner()
	return blobstore.NewNode{Mode: mode, UID: uid, GID: gid}
}

func (b *bench) mkdir(parent blobstore.Ino, name string) blobstore.Ino {
	b.Helper()
	a, err := b.drive.Make(b.ctx, parent, name, b.newNode(unix.S_IFDIR|0o755))
	b.ok(err)
	return a.Ino
}

// create makes a file with this content and leaves it open.
func (b *bench) create(parent blobstore.Ino, name, content string) (blobstore.File, blobstore.Ino) {
	b.Helper()
	f, a, _, err := b.drive.Create(b.ctx, parent, name, b.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenExclusive)
	b.ok(err)
	_, err = f.WriteAt(b.ctx, []byte(content), 0)
	b.ok(err)
	return f, a.Ino
}

func (b *bench) mkfile(parent blobstore.Ino, name, content string) blobstore.Ino {
	b.Helper()
	f, ino := b.create(parent, name, content)
	b.ok(f.Close())
	return ino
}

func (b *bench) lookup(parent blobstore.Ino, name string) blobstore.Attr {
	b.Helper()
	a, err := b.drive.Lookup(b.ctx, parent, name)
	b.ok(err)
	return a
}

func (b *bench) rename(parent blobstore.Ino, name string, newParent blobstore.Ino, newName string) error {
	return b.drive.Rename(b.ctx, blobstore.Rename{Parent: parent, Name: name, NewParent: newParent, NewName: newName})
}

func (b *bench) read(f blobstore.File) string {
	b.Helper()
	p := make([]byte, 1<<16)
	n, err := f.ReadAt(b.ctx, p, 0)
	b.ok(err)
	return string(p[:n])
}

func (b *bench) cat(ino blobstore.Ino) string {
	b.Helper()
	f, err := b.drive.Open(b.ctx, ino, blobstore.OpenRead)
	b.ok(err)
	defer f.Close()
	return b.read(f)
}

func (b *bench) want(got, want string) {
	b.Helper()
	if got != want {
		b.Errorf("got %q, want %q", got, want)
	}
}

// outside writes a file as another program does.
func (b *bench) outside(path, content string) {
	b.Helper()
	b.ok(os.WriteFile(path, []byte(content), 0o644))
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
