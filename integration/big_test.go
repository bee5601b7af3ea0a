package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	memoryLimit = 200_000_000
	sparseFile  = int64(5) << 40
)

// At full length this is 10 GB, and a million files.
var (
	bigFile   = size(int64(1)<<30, 10_000_000_000)
	manyFiles = size(50_000, 1_000_000)
)

// A file of 1 GiB comes back as it was written, from a program that never has as much memory as the file is big.
func TestABigFileTakesLittleMemory(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		program, err := lean()
		check(t, err)
		alice := s.addUser(t, "alice")
		m := s.mountWith(t, program, alice, s.mountpoint(t))

		file, err := os.Create(m.path("video"))
		check(t, err)
		written := sha256.New()
		source := io.LimitReader(rand.NewChaCha8([32]byte{}), bigFile)
		copyAll(t, io.MultiWriter(file, written), source)
		check(t, file.Close())
		underLimit(t, "writing", m.peakMemory(t))
		m.unmount(t)

		// Mounted again, nothing is left in the kernel's cache: all is read from the store.
		m = s.mountWith(t, program, alice, m.point)
		file, err = os.Open(m.path("video"))
		check(t, err)
		defer file.Close()
		read := sha256.New()
		if n := copyAll(t, read, file); n != bigFile {
			t.Errorf("read %d bytes, want %d", n, bigFile)
		}
		underLimit(t, "reading", m.peakMemory(t))
		if got, want := sum(read), sum(written); got != want {
			t.Errorf("SHA-256 read back %s, want %s", got, want)
		}
	})
}

// A walk looks at every file of a drive with so many that whatever the program kept for each would show: in folders of 10,000, and in one large
// folder. Once the kernel knows them all, they are looked at again.
func TestAWalkOfManyFilesTakesLittleMemory(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		program, err := lean()
		check(t, err)
		alice := s.addUser(t, "alice")
		m := s.mountWith(t, program, alice, s.mountpoint(t))
		const each = 10_000
		folders := manyFiles / 2 / each
		for i := range folders {
			s.fillWithNodes(t, m, alice, fmt.Sprintf("folder%d", i), each)
		}
		s.fillWithNodes(t, m, alice, "large", manyFiles-folders*each)
		m.unmount(t)

		m = s.mountWith(t, program, alice, m.point)
		for _, times := range []string{"once", "twice"} {
			seen := strings.Fields(s.person.shell(t, m.point, `find . -type f -printf '%s\n' | sort | uniq -c`).ok(t))
			if want := []string{strconv.Itoa(manyFiles), "0"}; !slices.Equal(seen, want) {
				t.Errorf("find sees %q, want %q: how many files, of which size", seen, want)
			}
			underLimit(t, "walking "+times, m.peakMemory(t))
		}
	})
}

// fillWithNodes is fillFolder with a node for every name.
func (s *store) fillWithNodes(t *testing.T, m *mount, u user, folder string, size int) {
	t.Helper()
	if s.kind == postgres {
		s.fillFolder(t, m, u, folder, size)
		return
	}
	check(t, os.Mkdir(m.path(folder), 0o755))
	for i := range size {
		check(t, unix.Mknod(filepath.Join(s.folder(u), folder, bigName(i)), unix.S_IFREG|0o644, 0))
	}
}

func copyAll(t *testing.T, to io.Writer, from io.Reader) int64 {
	t.Helper()
	n, err := io.CopyBuffer(to, struct{ io.Reader }{from}, make([]byte, 1<<20))
	check(t, err)
	return n
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func underLimit(t *testing.T, what string, peak int64) {
	t.Helper()
	t.Logf("%s: %d MB at most", what, peak/1_000_000)
	if peak >= memoryLimit {
		t.Errorf("%s took %d MB of memory, want less than %d", what, peak/1_000_000, memoryLimit/1_000_000)
	}
}

// A 5 TiB file of holes is made, written and read at both ends, and costs almost nothing.
func TestASparseFileCostsAlmostNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.person.run(t, m.point, "truncate", "-s", "5T", "sparse").ok(t)
		s.person.shell(t, m.point, `
			printf begin | dd of=sparse conv=notrunc status=none
			printf finish | dd of=sparse bs=1 seek=$((5 * 1024 ** 4 - 6)) conv=notrunc status=none`).ok(t)
		m.unmount(t)

		m = s.mountAt(t, alice, m.point)
		var stat unix.Stat_t
		check(t, unix.Stat(m.path("sparse"), &stat))
		if stat.Size != sparseFile {
			t.Errorf("size %d, want %d", stat.Size, sparseFile)
		}
		if taken := stat.Blocks * 512; taken > 1<<20 {
			t.Errorf("it takes %d bytes, want next to none", taken)
		}
		script := `head -c 8 sparse | od -An -c; tail -c 8 sparse | od -An -c
			dd if=sparse bs=1M skip=3000000 count=1 status=none | tr -d '\0' | wc -c`
		want := "b e g i n \\0 \\0 \\0 \\0 \\0 f i n i s h 0"
		if got := strings.Join(strings.Fields(s.person.shell(t, m.point, script).ok(t)), " "); got != want {
			t.Errorf("read %q, want %q", got, want)
		}

		file, err := os.Open(m.path("sparse"))
		check(t, err)
		defer file.Close()
		// Whatever the size of its blocks, the first MiB ends in a hole, and the end is the next that is not one.
		if off, err := unix.Seek(int(file.Fd()), 1<<20, unix.SEEK_DATA); err != nil || off < sparseFile-1<<20 {
			t.Errorf("SEEK_DATA from 1 MiB: %d, %v, want the last MiB of %d", off, err, sparseFile)
		}
		if s.kind == postgres {
			if n := number(t, s.connect(t), "SELECT count(*) FROM mediafs.chunks"); n != 2 {
				t.Errorf("%d chunks, want one for each end", n)
			}
		}
	})
}
