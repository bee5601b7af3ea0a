package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timesOf are the times of a node, of a symbolic link itself.
func timesOf(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	check(t, unix.Lstat(path, &st))
	return st
}

func setTimes(t testing.TB, path string, atime, mtime int64) {
	t.Helper()
	times := []unix.Timespec{unix.NsecToTimespec(atime), unix.NsecToTimespec(mtime)}
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

func mtimeOf(t testing.TB, path string) int64 {
	t.Helper()
	st := timesOf(t, path)
	return unix.TimespecToNsec(st.Mtim)
}

// Times are kept to the nanosecond, also before 1970, of nodes of every kind.
func TestTimesAreKeptToTheNanosecond(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.person.shell(t, m.point, "touch file; mkdir dir; ln -s file link; mkfifo pipe").ok(t)
		want := make(map[string][2]int64)
		for i, name := range []string{"file", "dir", "link", "pipe"} {
			want[name] = [2]int64{1_700_000_000_123_456_789 + int64(i), -1_500_000_001 - int64(i)}
			setTimes(t, m.path(name), want[name][0], want[name][1])
		}
		for _, when := range []string{"at once", "mounted again"} {
			for name, times := range want {
				st := timesOf(t, m.path(name))
				if got := [2]int64{unix.TimespecToNsec(st.Atim), unix.TimespecToNsec(st.Mtim)}; got != times {
					t.Errorf("%s, %s: got atime and mtime %d, want %d", when, name, got, times)
				}
			}
			m.unmount(t)
			m = s.mountAt(t, alice, m.point)
		}
	})
}

// An mtime that somebody sets while a file is open stays when what had been written before is stored later: at close, at msync(2), when
// the kernel likes. What is written afterwards sets the time again.
func TestAnMtimeThatIsSetAfterWritingStays(t *testing.T) {
	const set = int64(1_000_000_000_123_456_789)
	byDescriptor := func(t *testing.T, file *os.File) {
		times := []unix.Timespec{unix.NsecToTimespec(set), unix.NsecToTimespec(set)}
		check(t, futimens(int(file.Fd()), times))
	}
	byAnother := func(t *testing.T, file *os.File) {
		person{}.run(t, "/", "touch", "-d", "@1000000000.123456789", file.Name()).ok(t)
	}
	written := func(t *testing.T, file *os.File) (end func()) {
		_, err := file.WriteString(strings.Repeat("written", 30_000))
		check(t, err)
		return func() {}
	}
	mapped := func(t *testing.T, file *os.File) (end func()) {
		check(t, file.Truncate(2*page))
		pages, err := unix.Mmap(int(file.Fd()), 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(t, err)
		copy(pages[page-3:], "written")
		return func() { check(t, unix.Munmap(pages)) }
	}
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		for how, change := range map[string]func(*testing.T, *os.File) func(){"written": written, "mapped": mapped} {
			for who, setMtime := range map[string]func(*testing.T, *os.File){"by descriptor": byDescriptor, "by another process": byAnother} {
				for _, sync := range []bool{false, true} {
					file, err := os.Create(m.path(fmt.Sprintf("%s, %s, %v", how, who, sync)))
					check(t, err)
					end := change(t, file)
					setMtime(t, file)
					if got := mtimeOf(t, file.Name()); got != set {
						t.Errorf("%s, at once: got mtime %d, want %d", file.Name(), got, set)
					}
					if sync {
						check(t, file.Sync())
					}
					end()
					check(t, file.Close())
					if got := mtimeOf(t, file.Name()); got != set {
						t.Errorf("%s, closed: got mtime %d, want %d", file.Name(), got, set)
					}
				}
			}
		}
		after, err := os.Create(m.path("written afterwards"))
		check(t, err)
		written(t, after)
		byDescriptor(t, after)
		written(t, after)
		check(t, after.Close())

		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		for _, name := range names(t, m.point) {
			if got := mtimeOf(t, m.path(name)); (got == set) != (name != "written afterwards") {
				t.Errorf("%s, mounted again: got mtime %d, and %d was set", name, got, set)
			}
			if content := readFile(t, m.path(name)); !strings.Contains(content, "written") {
				t.Errorf("%s holds %.20q", name, content)
			}
		}
	})
}

func futimens(fd int, times []unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0)
}

// Every change sets the times of the nodes that it sets on a local disk, and no others.
func TestChangesSetTheTimesThatTheySetOnALocalDisk(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"))
		drive, disk := m.path("tree"), filepath.Join(tempDir(t), "tree")
		for _, root := range []string{drive, disk} {
			s.person.shell(t, "/", "mkdir -p "+root+"/{a,b,c}; cd "+root+"; echo content | tee file other over a/inside >/dev/null").ok(t)
		}
		open := func(name string, flags int, do func(fd int) error) func(string) error {
			return func(root string) error {
				fd, err := unix.Open(filepath.Join(root, name), flags|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				return errors.Join(do(fd), unix.Close(fd))
			}
		}
		two := func(do func(from, to string) error, from, to string) func(string) error {
			return func(root string) error { return do(filepath.Join(root, from), filepath.Join(root, to)) }
		}
		one := func(do func(path string) error, name string) func(string) error {
			return func(root string) error { return do(filepath.Join(root, name)) }
		}
		read := open("file", unix.O_RDONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 3)); return err })
		for _, step := range []struct {
			what string
			do   func(root string) error
		}{
			{"write", open("file", unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err })},
			{"read what was written", read},
			{"read it again", read},
			{"write through a mapping", open("file", unix.O_RDWR, func(fd int) error {
				mapped, err := unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					return err
				}
				mapped[0] = 'm'
				return errors.Join(unix.Msync(mapped, unix.MS_SYNC), unix.Munmap(mapped))
			})},
			{"truncate", one(func(path string) error { return unix.Truncate(path, 3) }, "file")},
			{"truncate to the same", one(func(path string) error { return unix.Truncate(path, 3) }, "file")},
			{"cut when opened", open("other", unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })},
			{"chmod", one(func(path string) error { return unix.Chmod(path, 0o600) }, "file")},
			{"set an attribute", one(func(path string) error { return unix.Setxattr(path, "user.x", []byte("x"), 0) }, "file")},
			{"remove it", one(func(path string) error { return unix.Removexattr(path, "user.x") }, "file")},
			{"rename", two(unix.Rename, "file", "renamed")},
			{"rename to another folder", two(unix.Rename, "renamed", "a/file")},
			{"rename over another file", two(unix.Rename, "a/file", "over")},
			{"rename a folder into another", two(unix.Rename, "b", "c/b")},
			{"exchange", two(func(from, to string) error {
				return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
			}, "over", "a/inside")},
			{"link", two(unix.Link, "over", "a/link")},
			{"unlink one of two names", one(unix.Unlink, "over")},
			{"make a file", open("c/new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(int) error { return nil })},
			{"make a folder", one(func(path string) error { return unix.Mkdir(path, 0o755) }, "c/folder")},
			{"remove a folder", one(unix.Rmdir, "c/folder")},
			{"make a link", one(func(path string) error { return unix.Symlink("target", path) }, "c/symlink")},
			{"write nothing", open("other", unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, nil); return err })},
			{"fail to make", one(func(path string) error {
				if err := unix.Mkdir(path, 0o755); !errors.Is(err, unix.EEXIST) {
					return fmt.Errorf("mkdir: %w, want EEXIST", err)
				}
				return nil
			}, "a")},
		} {
			var changed [2][]string
			for i, root := range []string{disk, drive} {
				waitForTick(t, root)
				before := treeTimes(t, root)
				check(t, step.do(root))
				changed[i] = changedTimes(before, treeTimes(t, root))
			}
			if !slices.Equal(changed[0], changed[1]) {
				t.Errorf("%s: changes %q, want %q", step.what, changed[1], changed[0])
			}
		}
	})
}

// waitForTick waits until the clock that files get their times from has moved on.
func waitForTick(t *testing.T, root string) {
	t.Helper()
	probe := filepath.Join(filepath.Dir(root), "probe")
	writeFile(t, probe, "")
	begin := mtimeOf(t, probe)
	until(t, "a later time", func() bool {
		writeFile(t, probe, "x")
		return mtimeOf(t, probe) > begin
	})
}

// treeTimes are the times of all nodes of a tree, by path and kind of time. Those of access are of files alone, as a store in a database
// keeps no others.
func treeTimes(t *testing.T, root string) map[string]int64 {
	t.Helper()
	times := make(map[string]int64)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := timesOf(t, path)
		name := strings.TrimPrefix(path, root)
		times[name+" mtime"], times[name+" ctime"] = unix.TimespecToNsec(st.Mtim), unix.TimespecToNsec(st.Ctim)
		if entry.Type().IsRegular() {
			times[name+" atime"] = unix.TimespecToNsec(st.Atim)
		}
		return nil
	})
	check(t, err)
	return times
}

// changedTimes says which times are others than before, and what is new.
func changedTimes(before, after map[string]int64) []string {
	var changed []string
	for _, what := range slices.Sorted(maps.Keys(after)) {
		if ns, ok := before[what]; !ok || ns != after[what] {
			changed = append(changed, what)
		}
	}
	return changed
}

// Reading moves the time of access as relatime has it, which outlives the mount; a mount that is read-only leaves no trace.
func TestReadingMovesTheTimeOfAccess(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		native := filepath.Join(tempDir(t), "file")
		atime := func(path string) int64 {
			st := timesOf(t, path)
			return unix.TimespecToNsec(st.Atim)
		}
		const old = int64(1_000_000_000_000_000_001)
		for _, path := range []string{native, m.path("file"), m.path("quiet")} {
			writeFile(t, path, "content")
			setTimes(t, path, old, old)
		}
		readFile(t, native)
		moves := atime(native) != old
		if s.kind == postgres {
			moves = true // whatever the file system of the tests does
		}
		begun := time.Now().UnixNano()
		readFile(t, m.path("file"))
		moved := atime(m.path("file"))
		if (moved != old) != moves {
			t.Fatalf("read, with an atime of %d before: got %d, want it to move: %v", old, moved, moves)
		}
		const tick = int64(20 * time.Millisecond) // of the clock that files get their times from
		if moves && moved < begun-tick {
			t.Errorf("got atime %d, want one from %d on", moved, begun)
		}
		fd, err := unix.Open(m.path("quiet"), unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
		check(t, err)
		_, err = unix.Read(fd, make([]byte, 3))
		check(t, errors.Join(err, unix.Close(fd)))
		if got := atime(m.path("quiet")); got != old {
			t.Errorf("read with O_NOATIME: got atime %d, want %d", got, old)
		}
		m.unmount(t)

		m = s.mountAt(t, alice, m.point, "--read-only")
		if got := atime(m.path("file")); got != moved {
			t.Errorf("mounted again: got atime %d, want %d", got, moved)
		}
		readFile(t, m.path("quiet"))
		m.unmount(t)
		m = s.mountAt(t, alice, m.point)
		if got := atime(m.path("quiet")); got != old {
			t.Errorf("read where nothing may be changed: got atime %d, want %d", got, old)
		}
	})
}
