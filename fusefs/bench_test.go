package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
