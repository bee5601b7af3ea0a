package fusefs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Another mount of the drive replaces a file: its old number is gone, and its name leads to the new one.
func TestFileReplacedElsewhereIsFoundAnew(t *testing.T) {
	ctx := context.Background()
	for what, use := range map[string]func(path string) (string, error){
		"read": func(path string) (string, error) { b, err := os.ReadFile(path); return string(b), err },
		"stat": func(path string) (string, error) {
			var stx unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &stx)
			return "new content"[:min(11, stx.Size)], err
		},
		"chmod": func(path string) (string, error) { return "new content", os.Chmod(path, 0o600) },
		"link":  func(path string) (string, error) { return "new content", os.Link(path, path+" again") },
		"list attributes": func(path string) (string, error) {
			_, err := unix.Listxattr(path, nil)
			return "new content", err
		},
	} {
		drive := newDrive(t)
		put := func(content string) {
			f, _, _, err := drive.Create(ctx, blobstore.RootIno, "file", blobstore.NewNode{Mode: unix.S_IFREG | 0o644}, blobstore.OpenWrite)
			must(t, err)
			_, err = f.WriteAt(ctx, []byte(content), 0)
			must(t, errors.Join(err, f.Close()))
		}
		_, dir := mount(t, drive, Options{})
		path := filepath.Join(dir, "file")
		put("old")
		_, err := os.Stat(path) // the kernel knows it now, for a second
		must(t, err)
		must(t, drive.Unlink(ctx, blobstore.RootIno, "file"))
		put("new content")

		if got, err := use(path); got != "new content" || err != nil {
			t.Errorf("%s: got %q, %v, want the new file", what, got, err)
		}
	}
}

// Another mount makes a file of somebody else after the kernel has seen that there is none. The kernel has no reason to check
// whether the caller may open it.
func TestFileMadeElsewhereIsNotOpenedUnchecked(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		what, script string
		owner        uint32
		opened       bool
	}{
		{"somebody else's secret", "echo mine > file", 1234, false},
		{"a file of one's own", "echo mine > file", nobody, true},
		{"a file of one's own, with O_EXCL", "set -C; echo mine > file", nobody, false},
	} {
		drive := &wrapped{Drive: newDrive(t)}
		f, attr, _, err := drive.Create(t.Context(), blobstore.RootIno, "file",
			blobstore.NewNode{Mode: unix.S_IFREG | 0o600, UID: c.owner}, blobstore.OpenWrite)
		must(t, err)
		must(t, f.Close())
		_, err = drive.SetAttr(t.Context(), blobstore.RootIno, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o777})
		must(t, err)
		var asked atomic.Int32
		drive.lookup = func(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
			if asked.Add(1) == 1 {
				return blobstore.Attr{}, blobstore.ErrNotExist
			}
			return drive.Drive.Lookup(ctx, parent, name)
		}
		_, dir := mount(t, drive, Options{AllowOther: true})
		said, err := shellAs(nobody, dir, c.script)
		if (err == nil) != c.opened {
			t.Errorf("%s: got %v, %s; want it opened: %v", c.what, err, said, c.opened)
		}
		now, err := drive.Attr(t.Context(), attr.Ino)
		must(t, err)
		if got := now.Size > 0; got != c.opened {
			t.Errorf("%s: written: %v, want %v", c.what, got, c.opened)
		}
	}
}
