package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// carries returns what goes over the wire while something is done.
func (w *wire) carries(t *testing.T, what string, do func()) int64 {
	t.Helper()
	before, start := w.bytes.Load(), time.Now()
	do()
	n := w.bytes.Load() - before
	t.Logf("%s: %d bytes over the wire, %v", what, n, time.Since(start).Round(time.Millisecond))
	return n
}

const (
	copiedFile = 64 << 20
	nextToNone = 256 << 10 // bytes over the wire for a copy whose content is not among them
)

// What is copied from one file of a drive to another stays in the database, whatever program copies, wherever the ranges begin
// and end, and what is a hole stays one.
func TestACopyInsideADriveMovesNoContentThroughTheClient(t *testing.T) {
	t.Parallel()
	s, w := newStore(t, postgres, person{}).throughWire(t)
	m := s.mount(t, s.addUser(t, "alice"))
	admin := s.connect(t)
	// carries is what goes over the wire for something, without what describing files takes: that reads each once.
	carries := func(what string, do func()) int64 {
		t.Helper()
		for limit := time.Now().Add(time.Minute); number(t, admin, "select count(*) from mediafs.nodes where not described and mode & 61440 = 32768 and nlink > 0") > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("files are not described within a minute")
			}
		}
		return w.carries(t, what, do)
	}
	content := make([]byte, copiedFile)
	_, err := rand.NewChaCha8([32]byte{8}).Read(content)
	check(t, err)

	sparse := make([]byte, copiedFile)
	sparseFile, err := os.Create(m.path("sparse"))
	check(t, err)
	check(t, sparseFile.Truncate(copiedFile))
	for _, off := range []int{0, 10<<20 + 12345, 40 << 20} {
		copy(sparse[off:off+3<<20], content[off:])
		_, err := sparseFile.WriteAt(sparse[off:off+3<<20], int64(off))
		check(t, err)
	}
	check(t, sparseFile.Close())
	n := carries("writing 64 MiB", func() { check(t, os.WriteFile(m.path("full"), content, 0o644)) })
	if n < copiedFile {
		t.Fatalf("%d bytes went over the wire for a file of %d: it does not count", n, copiedFile)
	}

	for i, command := range []string{"cp", "cp --reflink=auto"} {
		name := fmt.Sprint("copy-", i)
		n := carries(command, func() { s.person.run(t, m.point, append(strings.Fields(command), "full", name)...).ok(t) })
		if n > nextToNone {
			t.Errorf("%s: %d bytes went over the wire, want %d at most", command, n, nextToNone)
		}
		sameContent(t, m.path(name), content)
		sameHoles(t, m.path("full"), m.path(name))
	}

	n = carries("copy_file_range of a file with holes", func() {
		copyFileRange(t, m.path("sparse"), 0, m.path("with holes"), 0, copiedFile)
	})
	if n > nextToNone {
		t.Errorf("copy_file_range: %d bytes went over the wire, want %d at most", n, nextToNone)
	}
	sameHoles(t, m.path("sparse"), m.path("with holes"))

	// Odd ranges that replace what is there. One makes the file longer, and one is copied within it.
	want := slices.Clone(sparse)
	for _, r := range []struct {
		from           string
		content        []byte
		fromOff, toOff int
		n              int
	}{
		{"full", content, 12_345, 777, 20_000_001},
		{"full", content, 1, 30 << 20, 1 << 20},
		{"sparse", sparse, 5<<20 + 1, 9<<20 + 7, 10_000_000},
		{"full", content, 60<<20 + 100, 63<<20 + 99, 4<<20 - 100},
		{"with holes", nil, 3, 50<<20 - 1, 8 << 20},
	} {
		if r.content == nil {
			r.content = want
		}
		what := fmt.Sprintf("copy_file_range of %d bytes of %s at %d to %d", r.n, r.from, r.fromOff, r.toOff)
		n := carries(what, func() { copyFileRange(t, m.path(r.from), r.fromOff, m.path("with holes"), r.toOff, r.n) })
		if n > nextToNone {
			t.Errorf("%s: %d bytes went over the wire, want %d at most", what, n, nextToNone)
		}
		want = append(want, make([]byte, max(0, r.toOff+r.n-len(want)))...)
		copy(want[r.toOff:r.toOff+r.n], slices.Clone(r.content[r.fromOff:]))
	}
	sameContent(t, m.path("with holes"), want)

	// What has been written and not stored goes over the wire once, to be stored, and then is copied too.
	source, err := os.Create(m.path("pending"))
	check(t, err)
	n = carries("writing and copying 64 MiB", func() {
		_, err := source.Write(content)
		check(t, err)
		copyFileRange(t, m.path("pending"), 0, m.path("copy of pending"), 0, copiedFile)
	})
	if n > copiedFile+2<<20 {
		t.Errorf("%d bytes went over the wire to write %d and copy them", n, copiedFile)
	}
	check(t, source.Close())
	sameContent(t, m.path("copy of pending"), content)

	// Of a file with holes, cp itself reads and writes what is between them. The copy has the same holes.
	for _, sparse := range []string{"auto", "always"} {
		carries("cp --sparse="+sparse, func() {
			s.person.run(t, m.point, "cp", "--sparse="+sparse, "sparse", "copy-"+sparse).ok(t)
		})
		if got, want := data(t, m.path("copy-"+sparse)), data(t, m.path("sparse")); got != want {
			t.Errorf("cp --sparse=%s: the data of the copy is at %s, want %s", sparse, got, want)
		}
	}
	m.unmount(t)
}

// copyFileRange copies with copy_file_range(2) until all is copied. A file that is not there yet is made.
func copyFileRange(t *testing.T, from string, fromOff int, to string, toOff, n int) {
	t.Helper()
	source, err := os.Open(from)
	check(t, err)
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o644)
	check(t, err)
	in, out := int64(fromOff), int64(toOff)
	for n > 0 {
		copied, err := unix.CopyFileRange(int(source.Fd()), &in, int(target.Fd()), &out, n, 0)
		check(t, err)
		if copied == 0 {
			t.Fatalf("copy_file_range of %s: nothing more at %d", from, in)
		}
		n -= copied
	}
	check(t, target.Close())
}

func sameContent(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, which are not the %d that were copied", path, len(got), len(want))
	}
}

// sameHoles compares how much room two files take, and where their data is.
func sameHoles(t *testing.T, a, b string) {
	t.Helper()
	var of [2]unix.Stat_t
	check(t, errors.Join(unix.Stat(a, &of[0]), unix.Stat(b, &of[1])))
	if of[0].Blocks != of[1].Blocks {
		t.Errorf("%s takes %d blocks, its copy %d", a, of[0].Blocks, of[1].Blocks)
	}
	if want, got := data(t, a), data(t, b); got != want {
		t.Errorf("the data of %s is at %s, that of its copy at %s", a, want, got)
	}
}

// data says where a file has data, as lseek(2) tells it.
func data(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	var found strings.Builder
	for off := int64(0); ; {
		begin, err := unix.Seek(int(file.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return found.String()
		}
		check(t, err)
		off, err = unix.Seek(int(file.Fd()), begin, unix.SEEK_HOLE)
		check(t, err)
		fmt.Fprintf(&found, "%d-%d ", begin, off)
	}
}
