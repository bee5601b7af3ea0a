package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// One name of a hundred comes and goes while a big folder is listed.
const fleeting = 100

func bigName(i int) string {
	if i%fleeting == fleeting/2 {
		return fmt.Sprintf("fleeting-%06d", i)
	}
	return fmt.Sprintf("lasting-%06d", i)
}

func isLasting(name string) bool { return strings.HasPrefix(name, "lasting-") }

// fillFolder makes a folder with so many names, where the store keeps them: by way of the drive it would take minutes.
func (s *store) fillFolder(t *testing.T, m *mount, u user, folder string, size int) {
	t.Helper()
	check(t, os.Mkdir(m.path(folder), 0o755))
	if s.kind != postgres {
		// Names of a few files, as thousands of files are slow to make and to remove on some disks.
		const perFile = 10_000
		path := func(i int) string { return filepath.Join(s.folder(u), folder, bigName(i)) }
		for i := range size {
			if first := i / perFile * perFile; first < i {
				check(t, unix.Link(path(first), path(i)))
			} else {
				check(t, unix.Mknod(path(i), unix.S_IFREG|0o644, 0))
			}
		}
		return
	}
	var st unix.Stat_t
	check(t, unix.Stat(m.path(folder), &st))
	const fill = `
		WITH numbers AS (
			UPDATE mediafs.drives SET next_ino = next_ino + $3 WHERE owner = $1 RETURNING drive_id, next_ino - $3 AS first),
		made AS (
			INSERT INTO mediafs.nodes (drive_id, ino, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			SELECT drive_id, first + i, 33188, 1, 0, 0, 0, 0, 0 FROM numbers, generate_series(0, $3 - 1) i),
		counted AS (
			UPDATE mediafs.usage u SET nodes = nodes + $3 FROM numbers WHERE u.drive_id = numbers.drive_id AND slot = 0)
		INSERT INTO mediafs.entries (drive_id, parent, position, ino, name)
		SELECT drive_id, $2, first + i, first + i,
			convert_to(CASE WHEN i % $4 = $4 / 2 THEN 'fleeting-' ELSE 'lasting-' END || lpad(i::text, 6, '0'), 'UTF8')
		FROM numbers, generate_series(0, $3 - 1) i`
	check(t, pgx.BeginFunc(context.Background(), s.connect(t), func(tx pgx.Tx) error {
		// Whatever goes round the mounts of a drive says so first.
		_, err := tx.Exec(context.Background(), "SELECT mediafs.announce(drive_id) FROM mediafs.drives WHERE owner = $1", u.name)
		if err == nil {
			_, err = tx.Exec(context.Background(), fill, u.name, int64(st.Ino), int64(size), int64(fleeting))
		}
		return err
	}))
}

// An openListing is a folder that is open, read with getdents64(2).
type openListing struct {
	fd     int
	buffer []byte
}

func openBigFolder(t *testing.T, path string, buffer int) *openListing {
	t.Helper()
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	return &openListing{fd, make([]byte, buffer)}
}

// page reads the next entries; none at the end.
func (l *openListing) page(t *testing.T) []dirent {
	t.Helper()
	n, err := unix.Getdents(l.fd, l.buffer)
	check(t, err)
	return slices.Collect(direntsOf(l.buffer[:n]))
}

// seek is seekdir(3), or at 0 rewinddir(3).
func (l *openListing) seek(t *testing.T, off int64) {
	t.Helper()
	got, err := unix.Seek(l.fd, off, unix.SEEK_SET)
	check(t, err)
	if got != off {
		t.Fatalf("lseek to %d gives %d", off, got)
	}
}

// lasting are the next n names that stay, from where the listing is.
func (l *openListing) lasting(t *testing.T, n int) (names []string) {
	t.Helper()
	for len(names) < n {
		page := l.page(t)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if isLasting(e.name) && len(names) < n {
				names = append(names, e.name)
			}
		}
	}
	return names
}

// A folder of 100,000 names is listed in pages, while names come and go in between: those that stay are there exactly once. Positions
// that were remembered lead to where they led before, whatever has gone meanwhile, with pages of any size.
func TestABigFolderIsListedWholeWhileNamesComeAndGo(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		const (
			size    = 100_000
			changes = 200 // pages after which names come and go: every eighth or so
		)
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.fillFolder(t, m, alice, "big", size)

		l := openBigFolder(t, m.path("big"), 32<<10)
		seen := make(map[string]int)
		var order []string             // of the names that stay
		cookies := make(map[int]int64) // positions, by how many of these names come before
		pages, gone := 0, 0
		for page := l.page(t); len(page) > 0; page = l.page(t) {
			for _, e := range page {
				seen[e.name]++
				if isLasting(e.name) {
					order = append(order, e.name)
				}
			}
			if pages++; pages%8 != 0 || gone == changes {
				continue
			}
			if gone%10 == 5 {
				cookies[len(order)] = page[len(page)-1].next
			}
			// One name goes that may have been listed or not, one comes, and one becomes another.
			check(t, unix.Unlink(m.path("big", bigName(gone*fleeting+fleeting/2))))
			check(t, unix.Mknod(m.path("big", fmt.Sprintf("new-%d", gone)), unix.S_IFREG|0o644, 0))
			last := bigName(size - fleeting/2 - gone*fleeting)
			check(t, unix.Rename(m.path("big", last), m.path("big", "renamed-"+last)))
			gone++
		}
		t.Logf("%d pages, names came and went %d times", pages, gone)
		if len(cookies) < 3 {
			t.Fatalf("names came and went %d times in %d pages", gone, pages)
		}
		for i := range size {
			if name := bigName(i); isLasting(name) && seen[name] != 1 {
				t.Fatalf("%s was listed %d times, want once", name, seen[name])
			}
		}
		for name, times := range seen {
			if times != 1 {
				t.Errorf("%s was listed %d times, want at most once", name, times)
			}
		}

		// Some of the names that may go are gone by now; the rest goes too.
		for i := range size / fleeting {
			if err := unix.Unlink(m.path("big", bigName(i*fleeting+fleeting/2))); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Fatal(err)
			}
		}
		small := openBigFolder(t, m.path("big"), 400)
		for before, cookie := range cookies {
			n := min(20, len(order)-before)
			for size, l := range map[string]*openListing{"large": l, "small": small} {
				l.seek(t, cookie)
				if got, want := l.lasting(t, n), order[before:before+n]; !slices.Equal(got, want) {
					t.Fatalf("with a %s buffer, after %d names come %q, want %q", size, before, got, want)
				}
			}
		}
		// Back at the beginning, a name that has come since is there.
		writeFile(t, m.path("big", "since"), "")
		l.seek(t, 0)
		if got := l.lasting(t, 1000); !slices.Equal(got, order[:1000]) {
			t.Error("after going back to the beginning the first 1000 names are others")
		}
		check(t, errors.Join(unix.Close(l.fd), unix.Close(small.fd)))
		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		want := strconv.Itoa(len(order) + 2*gone + 1 + 2) // with what was made, what was renamed, since, "." and ".."
		if got := strings.TrimSpace(s.person.shell(t, m.point, "ls -f big | wc -l").ok(t)); got != want {
			t.Errorf("mounted again, ls lists %s names, want %s", got, want)
		}
	})
}

// rm -r removes names while it lists them, over many pages.
func TestAFolderOfManyPagesIsRemovedAtOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		const size = 2500 // over a page of each kind
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.fillFolder(t, m, alice, "many", size)
		s.person.shell(t, m.point, "mkdir many/below && touch many/below/file").ok(t)
		if got := len(names(t, m.path("many"))); got != size+1 {
			t.Fatalf("%d names, want %d", got, size+1)
		}
		s.person.run(t, m.point, "rm", "-r", "many").ok(t)
		if got := names(t, m.point); len(got) != 0 {
			t.Errorf("%q is left", got)
		}
	})
}
