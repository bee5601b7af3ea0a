package dirstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// apart runs f where what it mounts is seen by nobody else and goes with it: on a thread with mounts of its own.
func apart(t *testing.T, f func()) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so the thread ends here
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err != nil {
			done <- err
			return
		}
		defer close(done)
		f()
	}()
	if err := <-done; err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("mounts are not allowed here: ", err)
	}
}

func TestWhatIsMountedInADriveIsNoPartOfIt(t *testing.T) {
	apart(t, func() {
		b := newBench(t)
		b.mkdir(root, "plain")
		other := filepath.Join(b.root, "bob")
		b.outside(filepath.Join(b.dir, "mounted file"), "")
		for _, dir := range []string{other, filepath.Join(b.dir, "another system"), filepath.Join(b.dir, "same system")} {
			b.ok(os.Mkdir(dir, 0o755))
		}
		b.outside(filepath.Join(other, "secret"), "of bob")
		b.ok(unix.Mount("none", filepath.Join(b.dir, "another system"), "tmpfs", 0, ""))
		b.ok(unix.Mount(other, filepath.Join(b.dir, "same system"), "", unix.MS_BIND, ""))
		b.ok(unix.Mount(filepath.Join(other, "secret"), filepath.Join(b.dir, "mounted file"), "", unix.MS_BIND, ""))
		for _, name := range []string{"another system", "same system", "mounted file"} {
			_, err := b.drive.Lookup(b.ctx, root, name)
			b.gives(err, blobstore.ErrCrossDevice, "look up "+name)
			_, _, _, err = b.drive.Create(b.ctx, root, name, b.newNode(unix.S_IFREG|0o644), readWrite)
			b.gives(err, blobstore.ErrCrossDevice, "create "+name)
			if err := b.drive.Unlink(b.ctx, root, name); err == nil {
				b.Errorf("%s was removed", name)
			}
			if err := b.rename(root, name, root, "renamed"); err == nil {
				b.Errorf("%s was renamed", name)
			}
		}
		complete := map[string]bool{}
		d, err := b.drive.OpenDir(b.ctx, root)
		b.ok(err)
		b.ok(d.Read(b.ctx, 0, true, func(e *blobstore.Entry) bool { complete[e.Name] = e.Complete; return true }))
		b.ok(d.Close())
		for name, want := range map[string]bool{"plain": true, "another system": false, "same system": false, "mounted file": false} {
			if got, listed := complete[name]; !listed || got != want {
				b.Errorf("%s: got listed %v, complete %v, want listed and %v", name, listed, got, want)
			}
		}
		// A folder that is in use while something is mounted over it.
		for _, name := range []string{"another system", "same system", "mounted file"} {
			b.ok(unix.Unmount(filepath.Join(b.dir, name), 0))
		}
	})
}

func TestADriveMayBeAMountOfItsOwn(t *testing.T) {
	apart(t, func() {
		media := filepath.Join(t.TempDir(), "media")
		alice := filepath.Join(media, "alice")
		if err := os.MkdirAll(filepath.Join(media, ".mediafs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(alice, 0o755), unix.Mount("none", alice, "tmpfs", 0, "")); err != nil {
			t.Fatal(err)
		}
		t.Run("use", func(*testing.T) {
			b := openBench(t, media)
			b.want(b.cat(b.mkfile(b.mkdir(root, "folder"), "file", "content")), "content")
		})
	})
}

func TestAFullDiskSaysSo(t *testing.T) {
	apart(t, func() {
		media := filepath.Join(t.TempDir(), "media")
		if err := errors.Join(os.Mkdir(media, 0o755), unix.Mount("none", media, "tmpfs", 0, "size=1m")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(media, ".mediafs"), 0o700); err != nil {
			t.Fatal(err)
		}
		b := openBench(t, media)
		f, ino := b.create(root, "file", "before")
		_, err := f.WriteAt(b.ctx, bytes.Repeat([]byte("x"), 2<<20), 4096)
		b.gives(err, blobstore.ErrNoSpace, "write")
		b.gives(f.Allocate(b.ctx, blobstore.AllocateExtend, 0, 2<<20), blobstore.ErrNoSpace, "allocate")
		_, err = b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 6})
		b.ok(err)
		b.want(b.read(f), "before")
		usage, err := b.drive.Usage(b.ctx)
		b.ok(err)
		if usage.TotalBytes != 1<<20 || usage.FreeBytes <= 0 || usage.FreeBytes >= 1<<20 {
			b.Errorf("got usage %+v, want some of 1 MiB", usage)
		}
		b.ok(f.Close())
		b.ok(unix.Mount("", media, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		_, err = b.drive.Make(b.ctx, root, "new", b.newNode(unix.S_IFREG|0o644))
		b.gives(err, blobstore.ErrReadOnly, "make on a disk that is read-only")
	})
}
