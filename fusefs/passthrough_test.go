package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// plainDrive is a drive of which the content of files is in plain files of a folder, as that of dirstore is.
type plainDrive struct {
	*wrapped
	dir string
}

func newPlainDrive(t *testing.T) *plainDrive {
	d := &plainDrive{wrapped: &wrapped{Drive: newDrive(t)}, dir: t.TempDir()}
	return d
}

func (d *plainDrive) plain(ino blobstore.Ino, f blobstore.File) (blobstore.File, error) {
	plain, err := os.OpenFile(filepath.Join(d.dir, strconv.FormatUint(uint64(ino), 10)), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &plainFile{File: f, plain: plain}, nil
}

func (d *plainDrive) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error) {
	f, err := d.wrapped.Open(ctx, ino, flags)
	if err != nil {
		return nil, err
	}
	return d.plain(ino, f)
}

func (d *plainDrive) Create(
	ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags,
) (blobstore.File, blobstore.Attr, bool, error) {
	f, attr, created, err := d.wrapped.Create(ctx, parent, name, node, flags)
	if err == nil {
		f, err = d.plain(attr.Ino, f)
	}
	return f, attr, created, err
}

// sized gives the size that the plain file has.
func (d *plainDrive) sized(attr blobstore.Attr, err error) (blobstore.Attr, error) {
	if err == nil && attr.IsRegular() {
		if info, err := os.Stat(filepath.Join(d.dir, strconv.FormatUint(uint64(attr.Ino), 10))); err == nil {
			attr.Size = info.Size()
		}
	}
	return attr, err
}

func (d *plainDrive) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	return d.sized(d.wrapped.Lookup(ctx, parent, name))
}

func (d *plainDrive) Attr(ctx context.Context, ino blobstore.Ino) (blobstore.Attr, error) {
	return d.sized(d.wrapped.Attr(ctx, ino))
}

func (d *plainDrive) SetAttr(ctx context.Context, ino blobstore.Ino, c blobstore.AttrChange) (blobstore.Attr, error) {
	return d.sized(d.wrapped.SetAttr(ctx, ino, c))
}

type plainFile struct {
	blobstore.File
	plain *os.File
}

func (f *plainFile) Descriptor() int { return int(f.plain.Fd()) }

func (f *plainFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := f.plain.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *plainFile) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	return f.plain.WriteAt(p, off)
}

func (f *plainFile) Close() error { return errors.Join(f.plain.Close(), f.File.Close()) }

// needPassthrough skips a test, or fails it in CI, where the kernel can't pass files through.
func needPassthrough(t *testing.T) {
	t.Helper()
	needRoot(t)
	drive := newPlainDrive(t)
	m, dir := mount(t, drive, Options{Passthrough: true})
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	if notes := m.Notes(); len(notes) > 0 {
		need(t, strings.Join(notes, "; "))
	}
}

func TestPlainFilesArePassedThrough(t *testing.T) {
	needPassthrough(t)
	drive := newPlainDrive(t)
	m, dir := mount(t, drive, Options{Passthrough: true})
	path := filepath.Join(dir, "file")
	content := randomBytes(3<<20 + 17)
	must(t, os.WriteFile(path, content, 0o644))
	plain, err := os.ReadFile(filepath.Join(drive.dir, strconv.FormatUint(uint64(attrOf(t, drive, "file").Ino), 10)))
	must(t, err)
	if !bytes.Equal(plain, content) {
		t.Error("the plain file is not what was written")
	}
	// Several opens of one node share what the kernel knows of it; the last one to close ends that.
	var files []*os.File
	for range 3 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		files = append(files, f)
	}
	_, err = files[0].WriteAt([]byte("changed"), 5)
	must(t, err)
	copy(content[5:], "changed")
	got := make([]byte, len(content))
	_, err = files[2].ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Error("one open file does not see what another has written")
	}
	for _, f := range files {
		must(t, f.Close())
	}
	got, err = os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Error("what is read back is not what was written")
	}
	if s := m.Stats(); !s.Passthrough || s.BytesRead != 0 || s.BytesWritten != 0 {
		t.Errorf("got %+v, want all bytes passed through", s)
	}
}

func TestFilesWithSetUserIDBitsAreNotPassedThrough(t *testing.T) {
	needPassthrough(t)
	_, dir := mount(t, newPlainDrive(t), Options{AllowOther: true, Passthrough: true})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("content\n"), 0o644))
	must(t, unix.Chmod(path, 0o6777))
	if said, err := shellAs(nobody, dir, "echo x >> file"); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if got := st.Mode & permissions; got != 0o777 {
		t.Errorf("got mode %o after an ordinary user wrote, want 777", got)
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != "content\nx\n" {
		t.Errorf("got content %q", got)
	}
}

// What is passed through since before it got the bits loses them all the same when others write.
func TestSetUserIDBitsGoFromFilesThatArePassedThrough(t *testing.T) {
	needPassthrough(t)
	_, dir := mount(t, newPlainDrive(t), Options{AllowOther: true, Passthrough: true})
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))
	open, err := os.Open(path)
	must(t, err)
	defer open.Close()
	must(t, unix.Chmod(path, 0o6777))
	if said, err := shellAs(nobody, dir, "echo x >> file"); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if got := st.Mode & permissions; got != 0o777 {
		t.Errorf("got mode %o after an ordinary user wrote, want 777", got)
	}
}

func TestOpenFilesKeepTheirWayWhenBitsChange(t *testing.T) {
	needPassthrough(t)
	_, dir := mount(t, newPlainDrive(t), Options{Passthrough: true})
	path := filepath.Join(dir, "file")
	for what, modes := range map[string][2]uint32{
		"set while open":  {0o755, 0o4755},
		"gone while open": {0o4755, 0o755},
	} {
		must(t, os.WriteFile(path, []byte("content"), 0o644))
		must(t, unix.Chmod(path, modes[0]))
		first, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		must(t, unix.Chmod(path, modes[1]))
		second, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Errorf("bits %s: a second open: %v", what, err)
			continue
		}
		_, err = first.WriteAt([]byte("C"), 0)
		must(t, err)
		got := make([]byte, 7)
		_, err = second.ReadAt(got, 0)
		must(t, err)
		if string(got) != "Content" {
			t.Errorf("bits %s: the second open reads %q, want %q", what, got, "Content")
		}
		must(t, errors.Join(first.Close(), second.Close()))
	}
}

func TestFilesAreNotPassedThroughUnasked(t *testing.T) {
	m, dir := mount(t, newPlainDrive(t), Options{})
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644))
	if s := m.Stats(); s.Passthrough || s.BytesWritten != 7 {
		t.Errorf("got %+v, want 7 bytes written and nothing passed through", s)
	}
	if notes := m.Notes(); len(notes) != 0 {
		t.Errorf("got notes %q, want none", notes)
	}
}

func TestPlainFilesAreSplicedWhenNotPassedThrough(t *testing.T) {
	drive := newPlainDrive(t)
	m, dir := mount(t, drive, Options{Passthrough: true})
	m.fs.handles.mu.Lock()
	m.fs.handles.passthrough.server = nil
	m.fs.handles.passthrough.why = "the test says so"
	m.fs.handles.mu.Unlock()
	path := filepath.Join(dir, "file")
	content := randomBytes(3<<20 + 17) // ends within a request
	must(t, os.WriteFile(path, content, 0o644))
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Error("what is read back is not what was written")
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	for _, c := range []struct{ off, n int }{{0, 1}, {4095, 2}, {1 << 20, 2 << 20}, {len(content) - 3, 100}, {len(content), 100}, {1 << 30, 1 << 20}} {
		got := make([]byte, c.n)
		n, err := f.ReadAt(got, int64(c.off))
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		want := content[min(c.off, len(content)):min(c.off+c.n, len(content))]
		if !bytes.Equal(got[:n], want) {
			t.Errorf("%d bytes at %d: got %d, which are not what was written", c.n, c.off, n)
		}
	}
	if notes := m.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "the test says so") {
		t.Errorf("got notes %q, want one that says why", notes)
	}
	if s := m.Stats(); s.Passthrough || s.BytesWritten != uint64(len(content)) {
		t.Errorf("got %+v, want %d bytes written and nothing passed through", s, len(content))
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(b) // never fails
	return b
}
