package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// BenchmarkCreateWriteClose makes small files, one after the other.
func BenchmarkCreateWriteClose(b *testing.B) {
	_, dir := mount(b, newDrive(b), Options{})
	content := make([]byte, 4096)
	n := 0
	for b.Loop() {
		n++
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), content, 0o644))
	}
}

// BenchmarkStat asks for attributes past the kernel's cache.
func BenchmarkStat(b *testing.B) {
	_, dir := mount(b, newDrive(b), Options{})
	path := filepath.Join(dir, "file")
	must(b, os.WriteFile(path, nil, 0o644))
	var stx unix.Statx_t
	for b.Loop() {
		must(b, unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &stx))
	}
}

// BenchmarkListWithAttributes lists 1,000 files with their attributes.
func BenchmarkListWithAttributes(b *testing.B) {
	_, dir := mount(b, newDrive(b), Options{})
	for i := range 1000 {
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644))
	}
	for b.Loop() {
		entries, err := os.ReadDir(dir)
		must(b, err)
		for _, e := range entries {
			_, err := e.Info()
			must(b, err)
		}
	}
}

// BenchmarkWrite writes in the largest requests that the kernel makes.
func BenchmarkWrite(b *testing.B) {
	_, dir := mount(b, newDrive(b), Options{})
	f, err := os.Create(filepath.Join(dir, "file"))
	must(b, err)
	defer f.Close()
	content := make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for i := int64(0); b.Loop(); i++ {
		_, err := f.WriteAt(content, i%64<<20)
		must(b, err)
	}
}

// BenchmarkWalk looks at 10,000 files in 100 folders, as find(1) does.
func BenchmarkWalk(b *testing.B) {
	_, dir := mount(b, newDrive(b), Options{})
	for i := range 100 {
		folder := filepath.Join(dir, fmt.Sprint(i))
		must(b, os.Mkdir(folder, 0o755))
		for j := range 100 {
			must(b, os.WriteFile(filepath.Join(folder, fmt.Sprint(j)), nil, 0o644))
		}
	}
	for b.Loop() {
		must(b, filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err == nil {
				_, err = e.Info()
			}
			return err
		}))
	}
}

// BenchmarkPaths is what the audit log costs a request that has nothing to record: a lookup of a node that is known, and of one that
// is not.
func BenchmarkPaths(b *testing.B) {
	names := make([]string, 3*maxPaths)
	for i := range names {
		names[i] = fmt.Sprintf("IMG_%06d.jpg", i)
	}
	b.Run("known", func(b *testing.B) {
		p := newPaths(maxIno)
		for i := 0; b.Loop(); i++ {
			n := i % 1000
			p.saw(uint64(n+2), place{1, names[n]})
		}
	})
	b.Run("new", func(b *testing.B) {
		p := newPaths(maxIno)
		for i := 0; b.Loop(); i++ {
			n := i % len(names)
			p.saw(uint64(n+2), place{1, names[n]})
		}
	})
	b.Run("path", func(b *testing.B) {
		p := newPaths(maxIno)
		for i := range 8 {
			p.saw(uint64(i+2), place{uint64(i + 1), names[i]})
		}
		b.ReportAllocs()
		for b.Loop() {
			p.path(place{9, "IMG.jpg"})
		}
	})
}

// BenchmarkRequest is what a request costs beside the drive's work: from its beginning to its answer, and what is counted of it; from one
// goroutine, and from as many as there are processors.
func BenchmarkRequest(b *testing.B) {
	fs := newFilesystem(newDrive(b), Options{}.withDefaults())
	header := &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	ask := func() {
		r, err := fs.begin(opGetattr, header)
		r.end(err)
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			ask()
		}
	})
	b.Run("at once", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				ask()
			}
		})
	})
}
