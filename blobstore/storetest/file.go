package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// boundaries are offsets at which a store may start a new page, block, chunk or request.
var boundaries = []int64{4 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20}

const fiveTiB = 5 << 40

var fileTests = []test{
	{"a read gives what was written, at any offset and length", func(w *world) {
		content := pattern(1, 300_000)
		f := w.openFile(w.mkfile(root, "a", content))
		for _, off := range []int64{0, 1, 4095, 4096, 65_535, 131_071, 299_999} {
			for _, n := range []int{0, 1, 2, 4096, 4097, 70_000, 400_000} {
				w.same(w.readAt(f, off, n), content[off:min(off+int64(n), 300_000)], "%d bytes at %d", n, off)
			}
		}
		w.close(f)
	}},
	{"a read at or past the end gives nothing", func(w *world) {
		f := w.openFile(w.mkfile(root, "a", "content"))
		for _, off := range []int64{7, 8, 4096, 1 << 20, blobstore.MaxFileSize, 1<<63 - 1} {
			w.same(w.readAt(f, off, 10), "", "bytes at %d", off)
		}
		w.close(f)
		g := w.openFile(w.mkfile(root, "empty", ""))
		w.same(w.readAt(g, 0, 10), "", "bytes of an empty file")
		w.close(g)
	}},
	{"what is written is seen at once by every open file and in the attributes", func(w *world) {
		f, ino := w.create(root, "a")
		files := []blobstore.File{f}
		for range 19 {
			files = append(files, w.openFile(ino))
		}
		want := ""
		for i, f := range files {
			piece := fmt.Sprintf("written through file %d;", i)
			w.write(f, int64(len(want)), piece)
			want += piece
			for _, g := range files {
				w.same(w.content(g), want, "content after write %d", i)
			}
			if a := w.attr(ino); a.Size != int64(len(want)) {
				w.Errorf("got size %d, want %d", a.Size, len(want))
			}
			if a := w.lookup(root, "a"); a.Size != int64(len(want)) {
				w.Errorf("looked up: got size %d, want %d", a.Size, len(want))
			}
		}
		for _, f := range files {
			w.close(f)
		}
		w.same(w.cat(ino), want, "content")
	}},
	{"what was written is there when the file was closed without a flush", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "content")
		w.ok(f.Close(), "close")
		w.same(w.cat(ino), "content", "content")
		w.reopen()
		w.same(w.cat(w.lookup(root, "a").Ino), "content", "content after reopening")
	}},
	{"a buffer that was written is the caller's again", func(w *world) {
		f, ino := w.create(root, "a")
		p := []byte(pattern(2, 200_000))
		want := string(p)
		_, err := f.WriteAt(w.ctx, p, 0)
		w.ok(err, "write")
		clear(p)
		w.same(w.content(f), want, "content")
		w.close(f)
		w.same(w.cat(ino), want, "content")
	}},
	{"overlapping writes across every boundary leave what came last", func(w *world) {
		m := w.mirror("a")
		for i, b := range boundaries {
			for _, d := range []int64{-1, 0, 1} {
				m.write(b+d, pattern(i, 3))
				m.check(b-8, 16)
			}
			m.write(b-3000, pattern(10+i, 10_000))
			m.write(b-1, pattern(20+i, 4098))
			m.write(b-4095, pattern(30+i, 4097))
		}
		m.write(0, pattern(40, 1<<20+1))
		m.write(1<<20-1, pattern(41, 1<<20+2))
		for _, b := range boundaries {
			m.check(b-4096, 16384)
		}
		m.whole()
	}},
	{"many small writes one after the other make one content", func(w *world) {
		m := w.mirror("a")
		for i := range 500 {
			m.write(m.size(), pattern(i, 1000+i%7))
		}
		m.whole()
	}},
	{"small writes from the end to the start make one content", func(w *world) {
		m := w.mirror("a")
		for i := 300; i >= 0; i-- {
			m.write(int64(i)*1001, pattern(i, 1001))
		}
		m.whole()
	}},
	{"random writes and truncations leave what a plain slice of bytes would hold", func(w *world) {
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 0))
			m := w.mirror(fmt.Sprint("seed ", seed))
			for range 150 {
				off := boundaries[rng.IntN(len(boundaries)-1)] + rng.Int64N(9000) - 4500
				switch rng.IntN(12) {
				case 0:
					m.truncate(max(off, 0))
				case 1:
					w.ok(m.file.Flush(w.ctx), "flush")
				case 2:
					m.reopen()
				case 3:
					m.write(max(off, 0), pattern(rng.IntN(250), 1+rng.IntN(200_000)))
				default:
					m.write(max(off, 0), pattern(rng.IntN(250), 1+rng.IntN(5000)))
				}
				m.check(max(off-4096, 0), 8192)
			}
			m.whole()
		}
	}},
	{"what was cut off reads as zero when the file grows again", func(w *world) {
		m := w.mirror("a")
		m.write(0, pattern(3, 2<<20+10))
		for i := len(boundaries) - 1; i >= 0; i-- {
			for _, d := range []int64{1, 0, -1} {
				m.truncate(boundaries[i] + d)
				m.truncate(boundaries[i] + 10_000)
				m.check(boundaries[i]-10, 20_000)
				m.truncate(boundaries[i] + d)
			}
		}
		m.truncate(0)
		m.truncate(5000)
		m.whole()
	}},
	{"what was cut off and stored reads as zero when a write leaps over it", func(w *world) {
		for i, b := range boundaries {
			m := w.mirror(fmt.Sprint(i))
			m.write(0, pattern(4, int(b)+5000))
			w.ok(m.file.Sync(w.ctx), "sync")
			m.truncate(b - 100)
			m.write(b+3000, "behind")
			m.whole()
		}
	}},
	{"a truncation is seen by every open file, before and after it is stored", func(w *world) {
		f, ino := w.create(root, "a")
		g := w.openFile(ino)
		w.write(f, 0, pattern(5, 200_000))
		w.truncate(ino, 100_000)
		w.same(w.content(g), pattern(5, 100_000), "content")
		w.close(f)
		w.same(w.content(g), pattern(5, 100_000), "content")
		h, err := w.drive.Open(w.ctx, ino, readWrite|blobstore.OpenTruncate)
		w.ok(err, "open and empty")
		w.same(w.content(g), "", "content")
		w.write(g, 0, "new")
		w.same(w.content(h), "new", "content")
		w.close(g)
		w.close(h)
		w.same(w.cat(ino), "new", "content")
	}},
	{"an empty write does nothing", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 1<<20, "")
		if a := w.attr(ino); a.Size != 0 {
			w.Errorf("got size %d, want 0", a.Size)
		}
		w.close(f)
	}},
	{"a write or an offset past the limit is refused and changes nothing", func(w *world) {
		f := w.openFile(w.mkfile(root, "a", "content"))
		w.unchanged(func() {
			for off, want := range map[int64]error{
				blobstore.MaxFileSize: blobstore.ErrTooLarge, blobstore.MaxFileSize - 1: blobstore.ErrTooLarge,
				1<<63 - 1: blobstore.ErrTooLarge, 1<<63 - 2: blobstore.ErrTooLarge, -1: blobstore.ErrInvalid,
			} {
				_, err := f.WriteAt(w.ctx, []byte("xy"), off)
				w.gives(err, want, "write at %d", off)
			}
			_, err := f.ReadAt(w.ctx, make([]byte, 1), -1)
			w.gives(err, blobstore.ErrInvalid, "read at -1")
		})
		w.close(f)
	}},
	{"a sparse file of 5 TiB costs nothing and is read at both ends", func(w *world) {
		ino := w.mkfile(root, "a", "first")
		if a := w.truncate(ino, fiveTiB); a.Size != fiveTiB {
			w.Errorf("got size %d, want %d", a.Size, int64(fiveTiB))
		}
		f := w.openFile(ino)
		w.write(f, fiveTiB-4, "last")
		w.same(w.readAt(f, 0, 10), "first\x00\x00\x00\x00\x00", "the start")
		w.same(w.readAt(f, fiveTiB/2-5000, 10_000), strings.Repeat("\x00", 10_000), "the middle")
		w.same(w.readAt(f, fiveTiB-8, 100), "\x00\x00\x00\x00last", "the end")
		w.ok(f.Sync(w.ctx), "sync")
		if a := w.attr(ino); a.Size != fiveTiB || a.Allocated > 4*max(w.Hole, 64<<10) {
			w.Errorf("got size %d and %d bytes of space, want next to none", a.Size, a.Allocated)
		}
		w.close(f)
		w.reopen()
		f = w.openFile(w.lookup(root, "a").Ino)
		w.same(w.readAt(f, fiveTiB-8, 100), "\x00\x00\x00\x00last", "the end after reopening")
		w.truncate(w.lookup(root, "a").Ino, 3)
		w.same(w.content(f), "fir", "what is left")
		w.close(f)
	}},
	{"a file lives without a name until the last open file closes", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, "written before")
		g := w.openFile(ino)
		w.unlink(root, "a")
		w.missing(root, "a")
		w.nlink(ino, 0)
		w.write(g, 0, "WRITTEN after ")
		w.truncate(ino, 13)
		w.chmod(ino, 0o700)
		w.same(w.content(f), "WRITTEN after", "content")
		w.ok(f.Sync(w.ctx), "sync")
		w.close(f)
		w.same(w.content(g), "WRITTEN after", "content")
		w.nlink(ino, 0)
		w.mkfile(root, "a", "another")
		w.same(w.content(g), "WRITTEN after", "content")
		w.close(g)
		w.gone(ino)
		w.same(w.cat(w.lookup(root, "a").Ino), "another", "content of the name")
	}},
	{"a file without a name stays while it is open, whatever else is cut or removed meanwhile", func(w *world) {
		for i := range 20 {
			f, ino := w.create(root, "a")
			w.unlink(root, "a")
			for range 5 {
				w.truncate(ino, 10)
				w.nlink(ino, 0)
				w.write(f, 0, "content")
				w.truncate(ino, 0)
				w.write(f, 0, "another content")
				w.chmod(ino, 0o600)
				w.mkfile(root, "b", "content")
				w.unlink(root, "b")
				w.same(w.content(f), "another content", "content")
				w.ok(f.Sync(w.ctx), "sync in round %d", i)
				w.same(w.content(f), "another content", "content after a sync")
			}
			w.close(f)
			w.gone(ino)
		}
	}},
	{"a large file without a name is gone for every method when it was closed", func(w *world) {
		f, ino := w.create(root, "a")
		w.write(f, 0, pattern(6, 3<<20))
		w.ok(f.Sync(w.ctx), "sync")
		w.unlink(root, "a")
		w.same(w.readAt(f, 2<<20, 1<<20), pattern(6, 3<<20)[2<<20:], "content")
		w.close(f)
		w.gone(ino)
		for what, call := range callsOn(w, ino) {
			if err := call(); !errors.Is(err, blobstore.ErrNotDir) { // it was no folder either
				w.gives(err, blobstore.ErrNotExist, "%s", what)
			}
		}
		w.reopen()
		w.holds(root)
	}},
	{"a sync of one file or a flush of another stores the node once and for all", func(w *world) {
		f, ino := w.create(root, "a")
		g := w.openFile(ino)
		w.write(f, 0, "f")
		w.write(g, 1, "g")
		w.ok(f.Sync(w.ctx), "sync")
		w.ok(g.Flush(w.ctx), "flush")
		w.ok(g.Flush(w.ctx), "flush again")
		w.close(f)
		w.close(g)
		w.reopen()
		w.same(w.cat(w.lookup(root, "a").Ino), "fg", "content")
	}},
	{"a file opened to append or to read reads as any other", func(w *world) {
		ino := w.mkfile(root, "a", "content")
		for _, flags := range []blobstore.OpenFlags{blobstore.OpenRead, readWrite | blobstore.OpenAppend} {
			f, err := w.drive.Open(w.ctx, ino, flags)
			w.ok(err, "open")
			w.same(w.content(f), "content", "content")
			w.close(f)
		}
		f, err := w.drive.Open(w.ctx, ino, blobstore.OpenWrite|blobstore.OpenAppend)
		w.ok(err, "open")
		w.write(f, 7, " and more")
		w.close(f)
		w.same(w.cat(ino), "content and more", "content")
	}},
	{"many files are open at once", func(w *world) {
		const many = 200
		var files []blobstore.File
		for i := range many {
			f, _ := w.create(root, fmt.Sprint(i))
			w.write(f, 0, pattern(i, 5000))
			files = append(files, f)
		}
		for i, f := range files {
			w.same(w.content(f), pattern(i, 5000), "content of file %d", i)
			w.close(f)
		}
		for i := range many {
			w.same(w.cat(w.lookup(root, fmt.Sprint(i)).Ino), pattern(i, 5000), "content of file %d", i)
		}
	}},
}

// pattern is n bytes that differ from those of another seed and, mostly, from their neighbours; none is zero.
func pattern(seed, n int) string {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((seed*31+i*7+i>>8*13)%255 + 1)
	}
	return string(p)
}

// A mirror is a file and the bytes that it should hold.
type mirror struct {
	*world
	ino  blobstore.Ino
	file blobstore.File
	want []byte
}

func (w *world) mirror(name string) *mirror {
	w.Helper()
	a := w.make(root, name, w.newNode(unix.S_IFREG|0o644))
	return &mirror{world: w, ino: a.Ino, file: w.openFile(a.Ino)}
}

func (m *mirror) size() int64 { return int64(len(m.want)) }

func (m *mirror) grow(size int64) {
	if n := size - m.size(); n > 0 {
		m.want = append(m.want, make([]byte, n)...)
	}
}

func (m *mirror) write(off int64, p string) {
	m.Helper()
	m.world.write(m.file, off, p)
	m.grow(off + int64(len(p)))
	copy(m.want[off:], p)
}

func (m *mirror) truncate(size int64) {
	m.Helper()
	if a := m.world.truncate(m.ino, size); a.Size != size {
		m.Errorf("truncate: got size %d, want %d", a.Size, size)
	}
	m.grow(size)
	m.want = m.want[:size:size]
}

// zero is what punching or zeroing does to bytes that are there.
func (m *mirror) zero(off, n int64) {
	if off < m.size() {
		clear(m.want[off:min(off+n, m.size())])
	}
}

func (m *mirror) allocate(mode blobstore.AllocateMode, off, n int64) {
	m.Helper()
	m.ok(m.file.Allocate(m.ctx, mode, off, n), "allocate %d at %d in mode %d", n, off, mode)
	switch mode {
	case blobstore.AllocateExtend:
		m.grow(off + n)
	case blobstore.AllocateZero:
		m.zero(off, n)
		m.grow(off + n)
	case blobstore.AllocatePunchHole, blobstore.AllocateZeroKeep:
		m.zero(off, n)
	}
}

// check compares the part of a range that the file has.
func (m *mirror) check(off, n int64) {
	m.Helper()
	from, to := min(off, m.size()), min(off+n, m.size())
	m.same(m.readAt(m.file, off, int(n)), string(m.want[from:to]), "%d bytes at %d", n, off)
}

// reopen closes the file and opens it again.
func (m *mirror) reopen() {
	m.Helper()
	m.close(m.file)
	m.file = m.openFile(m.ino)
}

// whole compares all, before and after it was stored, and closes the file.
func (m *mirror) whole() {
	m.Helper()
	m.same(m.content(m.file), string(m.want), "content")
	m.reopen()
	m.same(m.content(m.file), string(m.want), "content after closing")
	if a := m.attr(m.ino); a.Size != m.size() {
		m.Errorf("got size %d, want %d", a.Size, m.size())
	}
	m.close(m.file)
}
