package dirstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

func TestNoSymbolicLinkLeadsOut(t *testing.T) {
	b := newBench(t)
	other := filepath.Join(b.root, "bob")
	b.ok(os.Mkdir(other, 0o755))
	secret := filepath.Join(other, "secret")
	b.outside(secret, "of bob")
	b.ok(unix.Setxattr(secret, "user.kept", []byte("as it was"), 0))
	before, err := os.Stat(secret)
	b.ok(err)
	for name, target := range map[string]string{
		"absolute folder": other, "relative folder": "../bob", "chained folder": "relative folder",
		"absolute file": secret, "relative file": "../bob/secret", "chained file": "relative file",
		"up": "..", "root": "/", "self": "/proc/self/root",
	} {
		b.ok(os.Symlink(target, filepath.Join(b.dir, name)))
		a := b.lookup(root, name)
		if a.Type() != unix.S_IFLNK {
			b.Fatalf("%s: got type %o, want a symbolic link", name, a.Type())
		}
		got, err := b.drive.Readlink(b.ctx, a.Ino)
		b.ok(err)
		b.want(got, target)
		_, err = b.drive.Lookup(b.ctx, a.Ino, "secret")
		b.gives(err, blobstore.ErrNotDir, name+": look up")
		_, err = b.drive.OpenDir(b.ctx, a.Ino)
		b.gives(err, blobstore.ErrNotDir, name+": open folder")
		_, _, _, err = b.drive.Create(b.ctx, a.Ino, "new", b.newNode(unix.S_IFREG|0o644), readWrite)
		b.gives(err, blobstore.ErrNotDir, name+": create beneath")
		_, _, _, err = b.drive.Create(b.ctx, root, name, b.newNode(unix.S_IFREG|0o644), readWrite|blobstore.OpenTruncate)
		b.gives(err, blobstore.ErrLoop, name+": create")
		_, err = b.drive.Open(b.ctx, a.Ino, readWrite|blobstore.OpenTruncate)
		b.gives(err, blobstore.ErrInvalid, name+": open")
		_, err = b.drive.SetAttr(b.ctx, a.Ino, blobstore.AttrChange{Set: blobstore.SetSize})
		b.gives(err, blobstore.ErrInvalid, name+": truncate")
		_, err = b.drive.SetAttr(b.ctx, a.Ino, blobstore.AttrChange{Set: blobstore.SetMtime | blobstore.SetAtime})
		b.ok(err)
		if _, err := b.drive.SetAttr(b.ctx, a.Ino, blobstore.AttrChange{Set: blobstore.SetMode}); err == nil {
			b.Errorf("%s: the mode of a symbolic link was set", name)
		}
		err = b.drive.SetXattr(b.ctx, a.Ino, "user.kept", []byte("changed"), blobstore.XattrSet)
		b.gives(err, blobstore.ErrPermission, name+": set xattr")
		linked, err := b.drive.Link(b.ctx, a.Ino, root, name+", once more")
		b.ok(err)
		if linked.Ino != a.Ino {
			b.Errorf("%s: a link of it is node %d, want %d", name, linked.Ino, a.Ino)
		}
	}
	after, err := os.Stat(secret)
	b.ok(err)
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		b.Errorf("the other user's file was changed: got %v, want %v", after, before)
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(secret, "user.kept", value)
	b.ok(err)
	b.want(string(value[:n]), "as it was")
}

func TestAFolderThatIsSwappedForASymbolicLinkLeadsNowhere(t *testing.T) {
	for name, adjust := range map[string]func(*dirstore.Store){
		"with trust": func(*dirstore.Store) {}, "without trust": dirstore.Forgetful,
	} {
		t.Run(name, func(t *testing.T) { swapped(newBench(t, adjust)) })
	}
}

func swapped(b *bench) {
	other := filepath.Join(b.root, "bob")
	folder, link := filepath.Join(b.dir, "folder"), filepath.Join(b.dir, "link")
	b.ok(os.Mkdir(other, 0o755))
	b.outside(filepath.Join(other, "file"), "outside")
	b.ok(os.Mkdir(folder, 0o755))
	b.outside(filepath.Join(folder, "file"), "inside")
	b.ok(os.Symlink("../bob", link))

	var stop atomic.Bool
	var swaps atomic.Int64
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = unix.Renameat2(unix.AT_FDCWD, folder, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			swaps.Add(1)
		}
		done <- err
	}()
	for read := 0; (read < 200 || swaps.Load() < 2000) && b.ctx.Err() == nil; {
		runtime.Gosched()
		a, err := b.drive.Lookup(b.ctx, root, "folder")
		b.ok(err)
		_, _ = b.drive.Make(b.ctx, a.Ino, "made", b.newNode(unix.S_IFREG|0o644))
		_ = b.drive.Unlink(b.ctx, a.Ino, "made")
		file, err := b.drive.Lookup(b.ctx, a.Ino, "file")
		if err != nil {
			continue
		}
		f, err := b.drive.Open(b.ctx, file.Ino, readWrite)
		if err != nil {
			continue
		}
		b.want(b.read(f), "inside")
		b.ok(f.Close())
		read++
	}
	stop.Store(true)
	b.ok(<-done)
	b.ok(b.ctx.Err())
	entries, err := os.ReadDir(other)
	b.ok(err)
	if len(entries) != 1 {
		b.Errorf("got %v in the other user's folder, want file alone", entries)
	}
}

func TestAFolderMovedOutOfTheDriveIsOutOfReach(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	folder := b.mkdir(root, "folder")
	below := b.mkdir(folder, "below")
	file := b.mkfile(below, "file", "taken away")
	other := filepath.Join(b.root, "bob")
	b.ok(os.Mkdir(other, 0o700))
	b.ok(os.Rename(filepath.Join(b.dir, "folder"), filepath.Join(other, "folder")))
	for _, ino := range []blobstore.Ino{folder, below, file} {
		_, err := b.drive.Attr(b.ctx, ino)
		b.gives(err, blobstore.ErrStale, "attributes")
	}
	_, err := b.drive.Lookup(b.ctx, below, "file")
	b.gives(err, blobstore.ErrStale, "look up")
	_, err = b.drive.Open(b.ctx, file, blobstore.OpenRead)
	b.gives(err, blobstore.ErrStale, "open")
	_, err = b.drive.OpenDir(b.ctx, below)
	b.gives(err, blobstore.ErrStale, "open folder")
}

func TestADriveWhoseFolderIsReplacedIsGone(t *testing.T) {
	b := newBench(t, dirstore.Forgetful)
	b.ok(os.Rename(b.dir, filepath.Join(b.root, "bob")))
	b.ok(os.Mkdir(b.dir, 0o700))
	_, err := b.drive.Attr(b.ctx, root)
	b.gives(err, blobstore.ErrStale, "attributes of the root")
	b.ok(os.Remove(b.dir)) // what is closed later is the drive that was
	b.ok(os.Rename(filepath.Join(b.root, "bob"), b.dir))
}

func TestWhatAnotherProgramDoesIsSeen(t *testing.T) {
	b := newBench(t)
	path := func(name string) string { return filepath.Join(b.dir, name) }

	b.outside(path("a"), "written outside")
	a := b.lookup(root, "a")
	b.want(b.cat(a.Ino), "written outside")
	b.outside(path("a"), "and again, longer")
	b.want(b.cat(a.Ino), "and again, longer")
	if got, err := b.drive.Attr(b.ctx, a.Ino); err != nil || got.Size != 17 {
		b.Errorf("got size %d, %v, want 17", got.Size, err)
	}

	b.ok(os.Rename(path("a"), path("b")))
	_, err := b.drive.Attr(b.ctx, a.Ino)
	b.gives(err, blobstore.ErrStale, "attributes after a rename outside")
	if got := b.lookup(root, "b"); got.Ino != a.Ino || got.Generation != a.Generation {
		b.Errorf("the renamed file is node %d of %d, want %d of %d", got.Ino, got.Generation, a.Ino, a.Generation)
	}
	b.want(b.cat(a.Ino), "and again, longer")

	b.outside(path("new"), "replaced")
	b.ok(os.Rename(path("new"), path("b"))) // as editors save
	_, err = b.drive.Open(b.ctx, a.Ino, blobstore.OpenRead)
	b.gives(err, blobstore.ErrStale, "open after it was replaced outside")
	b.want(b.cat(b.lookup(root, "b").Ino), "replaced")

	b.ok(os.Remove(path("b")))
	_, err = b.drive.Lookup(b.ctx, root, "b")
	b.gives(err, blobstore.ErrNotExist, "look up after it was removed outside")

	folder := b.mkdir(root, "folder")
	file := b.mkfile(folder, "file", "moves along")
	b.ok(os.Rename(path("folder"), path("moved")))
	if got := b.lookup(root, "moved"); got.Ino != folder {
		b.Errorf("the moved folder is node %d, want %d", got.Ino, folder)
	}
	b.want(b.cat(file), "moves along")
	b.ok(os.RemoveAll(path("moved")))
	_, err = b.drive.Attr(b.ctx, folder)
	b.gives(err, blobstore.ErrStale, "attributes of a folder removed outside")
	_, err = b.drive.Make(b.ctx, folder, "new", b.newNode(unix.S_IFREG|0o644))
	if !errors.Is(err, blobstore.ErrStale) && !errors.Is(err, blobstore.ErrNotExist) {
		b.Errorf("make in a folder removed outside: got error %v, want ErrStale or ErrNotExist", err)
	}
}

func TestWhatIsRemovedOutsideIsNotKeptOnTheDisk(t *testing.T) {
	b := newBench(t)
	b.mkfile(root, "video", "large")
	before := descriptors(t)
	ino := b.lookup(root, "video").Ino
	_, err := b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o600})
	b.ok(err)
	if got := descriptors(t); got != before {
		b.Errorf("got %d descriptors after using a file, want %d: one that stays open keeps it on the disk", got, before)
	}
}

func TestFoldersMovedIntoEachOtherOutsideAreFoundAgain(t *testing.T) {
	b := newBench(t, dirstore.Trusting)
	path := func(name string) string { return filepath.Join(b.dir, name) }
	outer := b.mkdir(root, "outer")
	inner := b.mkdir(outer, "inner")
	b.mkfile(inner, "file", "")
	b.ok(os.Rename(path("outer/inner"), path("inner")))
	b.ok(os.Rename(path("outer"), path("inner/outer")))
	// By its descriptor the drive still has the inner folder, so it learns that the outer one is in it.
	b.lookup(inner, "outer")
	dirstore.Forgetful(b.store)
	for _, ino := range []blobstore.Ino{inner, outer} {
		_, err := b.drive.Attr(b.ctx, ino)
		b.gives(err, blobstore.ErrStale, "attributes of a folder in itself, as far as the drive knows")
	}
	if got := b.lookup(root, "inner").Ino; got != inner {
		b.Errorf("the inner folder is node %d, want %d", got, inner)
	}
	_, err := b.drive.Attr(b.ctx, outer)
	b.ok(err)
}

func TestPipesAndDevicesAreNeverOpened(t *testing.T) {
	b := newBench(t)
	kinds := map[string]uint32{"pipe": unix.S_IFIFO | 0o666, "socket": unix.S_IFSOCK | 0o666}
	if os.Geteuid() == 0 {
		kinds["terminal"] = unix.S_IFCHR | 0o666
		kinds["disk"] = unix.S_IFBLK | 0o600
	}
	for name, mode := range kinds {
		node := b.newNode(mode)
		if mode&unix.S_IFMT != unix.S_IFIFO && mode&unix.S_IFMT != unix.S_IFSOCK {
			node.Rdev = 5 << 8 // tty of devices.txt: opening it would fail or block here
		}
		a, err := b.drive.Make(b.ctx, root, name, node)
		b.ok(err)
		if a.Mode != mode || a.Rdev != node.Rdev {
			b.Errorf("%s: got mode %o of device %x, want %o of %x", name, a.Mode, a.Rdev, mode, node.Rdev)
		}
		// Each of these would block for ever, or fail otherwise, if the pipe were opened.
		_, err = b.drive.Open(b.ctx, a.Ino, blobstore.OpenRead)
		b.gives(err, blobstore.ErrInvalid, name+": open")
		_, _, _, err = b.drive.Create(b.ctx, root, name, b.newNode(unix.S_IFREG|0o644), blobstore.OpenWrite)
		b.gives(err, blobstore.ErrInvalid, name+": create")
		_, err = b.drive.SetAttr(b.ctx, a.Ino, blobstore.AttrChange{Set: blobstore.SetMode | blobstore.SetMtime, Mode: 0o640, MtimeNs: 1})
		b.ok(err)
		_, err = b.drive.ListXattr(b.ctx, a.Ino)
		b.ok(err)
		b.ok(b.rename(root, name, root, name+" moved"))
		b.ok(b.drive.Unlink(b.ctx, root, name+" moved"))
	}
}
