package fusefs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// counted are the counts of operations and errnos by their names.
func counted(s Stats) (operations, errnos map[string]uint64) {
	operations, errnos = map[string]uint64{}, map[string]uint64{}
	for _, o := range s.Operations {
		operations[o.Name] += o.Count
	}
	for _, e := range s.Errnos {
		errnos[e.Name] += e.Count
	}
	return operations, errnos
}

func TestEveryRequestIsCountedOnceByItsKind(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	before, _ := counted(m.Stats())
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.Mkdir(in(name), 0o755))
	}
	must(t, os.Rename(in("c"), in("d")))
	must(t, os.Remove(in("d"))) // unlink first, which the kernel refuses by itself
	must(t, os.Symlink("target", in("link")))
	must(t, os.Link(in("link"), in("another")))
	must(t, os.Remove(in("link")))
	f, err := os.Create(in("file"))
	must(t, err)
	for range 7 {
		_, err = f.WriteAt(make([]byte, 1000), 0)
		must(t, err)
	}
	must(t, f.Sync())
	must(t, f.Close())
	must(t, os.Chmod(in("file"), 0o600))
	must(t, unix.Setxattr(in("file"), "user.a", []byte("b"), 0))
	unmount(t, m)

	s := m.Stats()
	after, _ := counted(s)
	for name, want := range map[string]uint64{
		"mkdir": 3, "rename": 1, "rmdir": 1, "symlink": 1, "link": 1, "unlink": 1,
		"create": 1, "write": 7, "fsync": 1, "flush": 1, "release": 1, "setattr": 1, "setxattr": 1, "lock_wait": 0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s: got %d counted, want %d", name, got, want)
		}
	}
	var all uint64
	for _, o := range s.Operations {
		all += o.Count
		last := uint64(0)
		for _, bound := range durationBounds {
			if n, ok := o.Within[bound]; !ok || n < last || n > o.Count {
				t.Errorf("%s: of %d, %d took up to %v, and %d no longer than the bound before", o.Name, o.Count, n, bound, last)
			} else {
				last = n
			}
		}
		if (o.Took > 0) != (o.Count > 0) {
			t.Errorf("%s: %d took %v", o.Name, o.Count, o.Took)
		}
	}
	if s.Requests != all || s.UnderWay != 0 {
		t.Errorf("got %d requests, %d of them under way, and of all kinds %d", s.Requests, s.UnderWay, all)
	}
	if s.BytesWritten != 7000 {
		t.Errorf("got %d bytes written, want 7000", s.BytesWritten)
	}
}

// What failed is an error; what is just an answer has its count, too.
func TestErrnosAreCounted(t *testing.T) {
	drive := &wrapped{Drive: newDrive(t)}
	fails := make(chan error, 1)
	drive.setAttr = func(context.Context, blobstore.Ino, blobstore.AttrChange) (blobstore.Attr, error) {
		return blobstore.Attr{}, <-fails
	}
	m, dir := mount(t, drive, Options{Logger: discard})
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	_, before := counted(m.Stats())
	for _, c := range []struct {
		err   error
		errno unix.Errno
		times int
	}{
		{blobstore.ErrNoSpace, unix.ENOSPC, 2}, {blobstore.ErrQuota, unix.EDQUOT, 1}, {errors.New("unheard of"), unix.EIO, 3}, {blobstore.ErrPermission, unix.EPERM, 4},
	} {
		for range c.times {
			fails <- c.err
			wantErr(t, "chmod", os.Chmod(filepath.Join(dir, "file"), 0o600), c.errno)
		}
	}
	s := m.Stats()
	_, after := counted(s)
	for name, want := range map[string]uint64{"ENOSPC": 2, "EDQUOT": 1, "EIO": 3, "EPERM": 4, "ETIMEDOUT": 0} {
		if got, known := after[name]; !known || got-before[name] != want {
			t.Errorf("%s: got %d counted, want %d", name, got-before[name], want)
		}
	}
	if s.Errors != 6 {
		t.Errorf("got %d errors, want 6: what is not permitted is none", s.Errors)
	}
}

func TestARequestIsUnderWayUntilItIsAnswered(t *testing.T) {
	drive, slow := newSlowDrive(t)
	m, dir := mount(t, drive, Options{})
	f, err := os.Open(filepath.Join(dir, "file"))
	must(t, err)
	defer f.Close()
	read := make(chan error, 1)
	go func() {
		_, err := f.Read(make([]byte, 7))
		read <- err
	}()
	soon(t, "the read", slow.entered)
	if s := m.Stats(); s.UnderWay == 0 {
		t.Errorf("got %d requests and none under way while one is", s.Requests)
	}
	close(slow.goOn)
	must(t, soon(t, "the end of the read", read))
}

// The kernel asks for whole pages, and hears of the end of the file with the answer.
func TestWhatIsSplicedIsCountedAsFarAsItIsThere(t *testing.T) {
	const size = 2<<20 + 12345
	m, dir := mount(t, newPlainDrive(t), Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, randomBytes(size), 0o644))
	for round := uint64(1); round <= 2; round++ {
		f, err := os.Open(path) // which drops what the kernel has of it
		must(t, err)
		content := make([]byte, size)
		_, err = f.ReadAt(content, 0)
		must(t, errors.Join(err, f.Close()))
		if got := m.Stats().BytesRead; got != round*size {
			t.Errorf("after reading %d bytes %d times: %d are counted", size, round, got)
		}
	}
}
