package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"mediafs/blobstore"
)

var allocateModes = []blobstore.AllocateMode{
	blobstore.AllocateExtend, blobstore.AllocateKeepSize, blobstore.AllocatePunchHole, blobstore.AllocateZero, blobstore.AllocateZeroKeep,
}

var rangeTests = []test{
	{"what a write skips is a hole that reads as zero", func(w *world) {
		m := w.mirror("a")
		for _, b := range boundaries {
			m.write(b+b/2, "island")
			m.check(b-100, b)
		}
		m.whole()
	}},
	{"Seek finds where data and holes start", func(w *world) {
		h := w.Hole
		m := w.mirror("a")
		m.write(2*h, pattern(1, int(h)))
		m.write(5*h, pattern(2, int(2*h)))
		m.truncate(10 * h)
		for range 2 { // before and after it is stored
			for _, step := range []struct {
				whence    blobstore.SeekWhence
				off, want int64
			}{
				{blobstore.SeekData, 0, 2 * h},
				{blobstore.SeekData, 2*h - 1, 2 * h},
				{blobstore.SeekData, 2 * h, 2 * h},
				{blobstore.SeekData, 2*h + 1, 2*h + 1},
				{blobstore.SeekData, 3*h - 1, 3*h - 1},
				{blobstore.SeekData, 3 * h, 5 * h},
				{blobstore.SeekData, 6*h + 7, 6*h + 7},
				{blobstore.SeekHole, 0, 0},
				{blobstore.SeekHole, 1, 1},
				{blobstore.SeekHole, 2 * h, 3 * h},
				{blobstore.SeekHole, 2*h + 1, 3 * h},
				{blobstore.SeekHole, 3 * h, 3 * h},
				{blobstore.SeekHole, 5 * h, 7 * h},
				{blobstore.SeekHole, 10*h - 1, 10*h - 1},
			} {
				got, err := m.file.Seek(w.ctx, step.off, step.whence)
				if err != nil || got != step.want {
					w.Errorf("seek %d from %d: got %d, %v, want %d", step.whence, step.off, got, err, step.want)
				}
			}
			for _, off := range []int64{7 * h, 10*h - 1, 10 * h, 11 * h} {
				_, err := m.file.Seek(w.ctx, off, blobstore.SeekData)
				w.gives(err, blobstore.ErrNoData, "seek data from %d", off)
			}
			for _, off := range []int64{10 * h, 11 * h} {
				_, err := m.file.Seek(w.ctx, off, blobstore.SeekHole)
				w.gives(err, blobstore.ErrNoData, "seek a hole from %d", off)
			}
			w.ok(m.file.Sync(w.ctx), "sync")
			m.reopen()
		}
		m.whole()
	}},
	{"the end of a file is a hole, and an empty file has nothing to find", func(w *world) {
		f := w.openFile(w.mkfile(root, "a", "content"))
		if got, err := f.Seek(w.ctx, 3, blobstore.SeekHole); err != nil || got != 7 {
			w.Errorf("got hole at %d, %v, want 7", got, err)
		}
		if got, err := f.Seek(w.ctx, 3, blobstore.SeekData); err != nil || got != 3 {
			w.Errorf("got data at %d, %v, want 3", got, err)
		}
		w.close(f)
		f = w.openFile(w.mkfile(root, "b", ""))
		for _, whence := range []blobstore.SeekWhence{blobstore.SeekData, blobstore.SeekHole} {
			_, err := f.Seek(w.ctx, 0, whence)
			w.gives(err, blobstore.ErrNoData, "seek in an empty file")
		}
		w.close(f)
	}},
	{"Seek leaps over a hole of 5 TiB", func(w *world) {
		m, ino := w.create(root, "a")
		w.write(m, 0, "first")
		w.write(m, fiveTiB, "last")
		end := fiveTiB / w.Hole * w.Hole
		if got, err := m.Seek(w.ctx, w.Hole, blobstore.SeekData); err != nil || got != end {
			w.Errorf("got data at %d, %v, want %d", got, err, end)
		}
		w.close(m)
		w.truncate(ino, 1)
	}},
	{"what Seek calls a hole reads as zero, whatever was done", func(w *world) {
		for seed := range uint64(3) {
			rng := rand.New(rand.NewPCG(seed, 1))
			m := w.mirror(fmt.Sprint("seed ", seed))
			for range 40 {
				off, n := rng.Int64N(20*w.Hole), 1+rng.Int64N(3*w.Hole)
				switch rng.IntN(6) {
				case 0:
					m.truncate(off)
				case 1:
					m.reopen()
				case 2, 3:
					m.allocate(allocateModes[rng.IntN(len(allocateModes))], off, n)
				default:
					m.write(off, pattern(rng.IntN(250), int(n)))
				}
				m.holesAreZero()
			}
			m.whole()
		}
	}},
	{"Allocate grows or keeps the size, and leaves what was written", func(w *world) {
		for i, mode := range []blobstore.AllocateMode{blobstore.AllocateExtend, blobstore.AllocateKeepSize} {
			for j, b := range boundaries {
				m := w.mirror(fmt.Sprint(i, j))
				m.write(0, pattern(j, 5000))
				m.allocate(mode, 1000, b)
				m.allocate(mode, 0, 10)
				m.check(0, b+2000)
				m.write(b+2000, "after")
				m.whole()
			}
		}
	}},
	{"Allocate zeroes and punches across every boundary", func(w *world) {
		for _, mode := range []blobstore.AllocateMode{blobstore.AllocatePunchHole, blobstore.AllocateZero, blobstore.AllocateZeroKeep} {
			m := w.mirror(fmt.Sprint("mode ", mode))
			m.write(0, pattern(7, 2<<20+9000))
			for _, b := range boundaries {
				m.allocate(mode, b-1, 2)
				m.allocate(mode, b-2000, 1000)
				m.allocate(mode, b+4096, 4096)
				m.check(b-4096, 20_000)
			}
			m.allocate(mode, 300_000, 700_000)
			m.write(600_000, "into the hole")
			m.whole()
		}
	}},
	{"zeroing past the end grows the file or keeps its size, and punching keeps it", func(w *world) {
		for _, mode := range []blobstore.AllocateMode{blobstore.AllocatePunchHole, blobstore.AllocateZero, blobstore.AllocateZeroKeep} {
			m := w.mirror(fmt.Sprint("mode ", mode))
			m.write(0, pattern(8, 10_000))
			m.allocate(mode, 9_000, 100_000)
			m.allocate(mode, 500_000, 1000)
			m.write(m.size()+5000, "after")
			m.whole()
		}
	}},
	{"a punched hole takes no space", func(w *world) {
		h := w.Hole
		m := w.mirror("a")
		m.write(0, pattern(9, int(16*h)))
		w.ok(m.file.Sync(w.ctx), "sync")
		full := w.attr(m.ino).Allocated
		m.allocate(blobstore.AllocatePunchHole, 2*h, 12*h)
		w.ok(m.file.Sync(w.ctx), "sync")
		if got := w.attr(m.ino).Allocated; got > full-12*h {
			w.Errorf("got %d bytes of space after punching, want at most %d", got, full-12*h)
		}
		if got, err := m.file.Seek(w.ctx, 0, blobstore.SeekHole); err != nil || got != 2*h {
			w.Errorf("got hole at %d, %v, want %d", got, err, 2*h)
		}
		if got, err := m.file.Seek(w.ctx, 2*h, blobstore.SeekData); err != nil || got != 14*h {
			w.Errorf("got data at %d, %v, want %d", got, err, 14*h)
		}
		m.whole()
	}},
	{"Allocate refuses a range that is empty, negative or past the limit", func(w *world) {
		f := w.openFile(w.mkfile(root, "a", "content"))
		w.unchanged(func() {
			for _, mode := range allocateModes {
				for _, r := range []struct {
					off, n int64
					want   error
				}{
					{0, 0, blobstore.ErrInvalid},
					{-1, 5, blobstore.ErrInvalid},
					{0, -1, blobstore.ErrInvalid},
					{0, blobstore.MaxFileSize + 1, blobstore.ErrTooLarge},
					{blobstore.MaxFileSize, 1, blobstore.ErrTooLarge},
					{1<<63 - 1, 1<<63 - 1, blobstore.ErrTooLarge},
				} {
					w.gives(f.Allocate(w.ctx, mode, r.off, r.n), r.want, "allocate %d at %d in mode %d", r.n, r.off, mode)
				}
			}
		})
		w.close(f)
	}},
	{"CopyRange copies between two files", func(w *world) {
		src, dst := w.mirror("src"), w.mirror("dst")
		src.write(0, pattern(1, 700_000))
		dst.write(0, pattern(2, 100_000))
		for _, r := range []struct{ srcOff, dstOff, n int64 }{
			{0, 0, 10}, {5, 50_000, 70_000}, {65_535, 131_073, 200_000}, {1, 1 << 20, 1}, {131_072, 262_144, 262_144}, {4096, 8191, 4097},
		} {
			w.copies(src, r.srcOff, dst, r.dstOff, r.n, r.n)
			dst.check(max(r.dstOff-100, 0), r.n+200)
		}
		dst.whole()
		src.whole()
	}},
	{"CopyRange stops at the end of the source", func(w *world) {
		src, dst := w.mirror("src"), w.mirror("dst")
		src.write(0, "0123456789")
		dst.write(0, "abc")
		w.copies(src, 5, dst, 2, 100, 5)
		w.copies(src, 10, dst, 0, 10, 0)
		w.copies(src, 1000, dst, 0, 10, 0)
		w.copies(src, 0, dst, 0, 0, 0)
		dst.whole()
		src.whole()
	}},
	{"CopyRange copies what was written and not yet stored, holes too", func(w *world) {
		src, dst := w.mirror("src"), w.mirror("dst")
		dst.write(0, pattern(3, 600_000))
		src.write(500_000, pattern(4, 10))
		src.truncate(550_000)
		w.copies(src, 0, dst, 1000, 550_000, 550_000)
		src.write(500_000, "changed after")
		dst.whole()
		src.whole()
	}},
	{"CopyRange copies within one file, if the ranges do not overlap", func(w *world) {
		m := w.mirror("a")
		m.write(0, pattern(5, 300_000))
		w.copies(m, 0, m, 150_000, 150_000, 150_000)
		w.copies(m, 200_000, m, 10, 90_000, 90_000)
		w.copies(m, 100, m, 50, 50, 50)
		other := w.openFile(m.ino)
		for _, r := range []struct{ srcOff, dstOff, n int64 }{{0, 0, 10}, {0, 9, 10}, {9, 0, 10}, {100, 101, 100_000}} {
			_, err := w.drive.CopyRange(w.ctx, m.file, r.srcOff, other, r.dstOff, r.n)
			if w.canCopy(err) {
				w.gives(err, blobstore.ErrInvalid, "copy %d from %d to %d", r.n, r.srcOff, r.dstOff)
			}
		}
		w.close(other)
		m.whole()
	}},
	{"CopyRange refuses what is negative or past the limit", func(w *world) {
		src, dst := w.mirror("src"), w.mirror("dst")
		src.write(0, "content")
		dst.write(0, "content")
		for _, r := range []struct {
			srcOff, dstOff, n int64
			want              error
		}{
			{-1, 0, 1, blobstore.ErrInvalid},
			{0, -1, 1, blobstore.ErrInvalid},
			{0, 0, -1, blobstore.ErrInvalid},
			{0, blobstore.MaxFileSize, 1, blobstore.ErrTooLarge},
		} {
			_, err := w.drive.CopyRange(w.ctx, src.file, r.srcOff, dst.file, r.dstOff, r.n)
			if w.canCopy(err) {
				w.gives(err, r.want, "copy %d from %d to %d", r.n, r.srcOff, r.dstOff)
			}
		}
		dst.whole()
		src.whole()
	}},
	{"CopyRange marks the copy as modified", func(w *world) {
		src, dst := w.mirror("src"), w.mirror("dst")
		src.write(0, "content")
		dst.write(0, "con")
		w.setMtime(dst.ino, longAgo)
		w.setMtime(src.ino, longAgo)
		if w.copies(src, 0, dst, 0, 7, 7) && w.attr(dst.ino).MtimeNs == longAgo {
			w.Errorf("CopyRange left mtime as it was")
		}
		w.mtimeIs(src.ino, longAgo)
		dst.whole()
		src.whole()
	}},
}

// canCopy is false where the store leaves copying to its caller.
func (w *world) canCopy(err error) bool {
	w.Helper()
	return !errors.Is(err, blobstore.ErrNotSupported)
}

// copies copies a range and says whether the store can. It may copy less at a time than it is asked to, as
// copy_file_range(2), but something.
func (w *world) copies(src *mirror, srcOff int64, dst *mirror, dstOff, n, want int64) bool {
	w.Helper()
	for done := int64(0); ; {
		copied, err := w.drive.CopyRange(w.ctx, src.file, srcOff+done, dst.file, dstOff+done, n-done)
		if !w.canCopy(err) {
			return false
		}
		w.ok(err, "copy %d from %d to %d", n-done, srcOff+done, dstOff+done)
		done += copied
		if copied == 0 || done >= want {
			if done != want {
				w.Fatalf("copy %d from %d to %d: got %d, want %d", n, srcOff, dstOff, done, want)
			}
			break
		}
	}
	if want > 0 {
		dst.grow(dstOff + want)
		copy(dst.want[dstOff:dstOff+want], src.want[srcOff:srcOff+want])
	}
	return true
}

// holesAreZero walks from hole to data to hole.
func (m *mirror) holesAreZero() {
	m.Helper()
	for off := int64(0); off < m.size(); {
		data, err := m.file.Seek(m.ctx, off, blobstore.SeekData)
		if errors.Is(err, blobstore.ErrNoData) {
			data, err = m.size(), nil
		}
		m.ok(err, "seek data from %d", off)
		if data < off || data > m.size() {
			m.Fatalf("seek data from %d: got %d in a file of %d bytes", off, data, m.size())
		}
		if hole := m.want[off:data]; strings.Trim(string(hole), "\x00") != "" {
			m.Fatalf("Seek finds no data from %d to %d, where there is some", off, data)
		}
		if data == m.size() {
			return
		}
		off, err = m.file.Seek(m.ctx, data, blobstore.SeekHole)
		m.ok(err, "seek a hole from %d", data)
		if off <= data || off > m.size() {
			m.Fatalf("seek a hole from %d, where data is: got %d in a file of %d bytes", data, off, m.size())
		}
	}
}
