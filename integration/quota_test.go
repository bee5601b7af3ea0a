package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// limit sets a quota, of SIZE bytes and N files or none, and waits until a mount shows it, if there is one.
func (s *store) limit(t *testing.T, u user, size, files string, m *mount) {
	t.Helper()
	s.mediafs(t, "quota", "--store", s.address, "set", u.name, "--bytes", size, "--files", files).ok(t)
	q := s.quota(t, u)
	if m == nil {
		return
	}
	waitUntil(t, "df shows the quota", func() bool {
		st := m.space(t)
		return (q.MaxBytes == nil || int64(st.Blocks)*st.Frsize == *q.MaxBytes) && (q.MaxFiles == nil || int64(st.Files) == *q.MaxFiles)
	})
}

func (m *mount) space(t *testing.T) (st unix.Statfs_t) {
	t.Helper()
	check(t, unix.Statfs(m.point, &st))
	return st
}

type quotaLine struct {
	Drive        string
	Bytes, Files int64
	MaxBytes     *int64 `json:"max_bytes"`
	MaxFiles     *int64 `json:"max_files"`
}

// quota is what the program tells of a user's drive.
func (s *store) quota(t *testing.T, u user) quotaLine {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(s.mediafs(t, "quota", "--store", s.address, "--json").ok(t)))
	for {
		var q quotaLine
		check(t, decoder.Decode(&q)) // io.EOF: there is no such drive
		if q.Drive == u.name {
			return q
		}
	}
}

// writeOn appends to an open file until it fails, and returns how much was written, and that error of write(2).
func writeOn(file *os.File) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{zeros{}}, make([]byte, 96<<10))
}

// is wants an error to be an errno.
func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestADriveIsHeldToItsQuota(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		hers, his := s.mount(t, alice, map[kind][]string{folder: {"--passthrough"}}[s.kind]...), s.mount(t, bob)
		s.limit(t, alice, "4M", "none", hers)

		file, err := os.Create(hers.path("file"))
		check(t, err)
		defer file.Close()
		n, err := writeOn(file)
		is(t, "write into a full drive", err, unix.EDQUOT)
		if n != 4<<20 {
			t.Errorf("wrote %d bytes, and 4 MiB fit", n)
		}
		if st := hers.space(t); st.Bavail != 0 {
			t.Errorf("df shows %+v", st)
		}
		_, err = file.WriteAt(bytes.Repeat([]byte("over"), 1<<18), 1<<20) // what is there already
		check(t, err)
		writeFile(t, his.path("file"), strings.Repeat("b", 6<<20))

		s.limit(t, alice, "6M", "none", hers)
		more, err := writeOn(file)
		is(t, "write into a full drive", err, unix.EDQUOT)
		check(t, file.Sync())
		check(t, file.Close())
		if info, err := os.Stat(hers.path("file")); err != nil || n+more != 6<<20 || info.Size() != 6<<20 {
			t.Errorf("after %d and %d bytes: got %v, %v", n, more, info, err)
		}
		content := readFile(t, hers.path("file"))
		if strings.Count(content, "over") != 1<<18 || strings.Count(content, "z") != 5<<20 {
			t.Error("the file does not hold what was written")
		}

		// Lower than what is there: only less can be.
		s.limit(t, alice, "1M", "none", hers)
		writeFile(t, hers.path("empty"), "")
		is(t, "write into a drive that holds too much", os.WriteFile(hers.path("empty"), []byte("x"), 0o600), unix.EDQUOT)
		check(t, os.Truncate(hers.path("file"), 3<<20))
		check(t, os.Remove(hers.path("file")))
		waitUntil(t, "what was removed can be written anew", func() bool {
			return os.WriteFile(hers.path("empty"), bytes.Repeat([]byte("x"), 1<<20), 0o600) == nil
		})
		s.limit(t, alice, "none", "none", nil)
		waitUntil(t, "the limit is gone", func() bool { return os.WriteFile(hers.path("much"), make([]byte, 8<<20), 0o600) == nil })
		hers.unmount(t)
		his.unmount(t)
		s.checker().mediafs(t, "check", "--store", s.address).ok(t)
	})
}

func TestADriveHoldsNoMoreFilesThanItMay(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		writeFile(t, m.path("first"), "content")
		s.limit(t, alice, "none", "100", m)
		var err error
		made := 1
		for ; err == nil; made++ {
			switch name := m.path(fmt.Sprint(made)); made % 3 {
			case 0:
				var file *os.File
				if file, err = os.Create(name); err == nil {
					check(t, file.Close())
				}
			case 1:
				err = os.Mkdir(name, 0o700)
			default:
				err = os.Symlink("first", name)
			}
		}
		is(t, "make one too many", err, unix.EDQUOT)
		if made-1 != 100 || len(names(t, m.point)) != 100 {
			t.Errorf("made %d, and there are %d", made-1, len(names(t, m.point)))
		}
		for what, err := range map[string]error{
			"mkdir":   os.Mkdir(m.path("more"), 0o700),
			"symlink": os.Symlink("first", m.path("more")),
			"create":  os.WriteFile(m.path("more"), nil, 0o600),
			"mkfifo":  unix.Mkfifo(m.path("more"), 0o600),
		} {
			is(t, what, err, unix.EDQUOT)
		}
		if st := m.space(t); st.Files != 100 || st.Ffree != 0 {
			t.Errorf("df -i shows %+v", st)
		}
		check(t, os.Link(m.path("first"), m.path("second name")))
		check(t, os.Rename(m.path("first"), m.path("renamed")))
		check(t, os.Remove(m.path("second name")))
		check(t, os.Remove(m.path("renamed")))
		writeFile(t, m.path("more"), "fits")
		m.unmount(t)
		s.checker().mediafs(t, "check", "--store", s.address).ok(t)
	})
}

// Whoever writes while a limit is set is told, at the latest when the file is closed.
func TestAQuotaThatIsSetWhileADriveIsWritten(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		set := make(chan struct{})
		var once sync.Once
		go func() {
			<-set
			s.limit(t, alice, "1M", "none", nil)
		}()
		waitUntil(t, "the quota is in force", func() bool {
			err := os.WriteFile(m.path("file"), make([]byte, 2<<20), 0o600)
			once.Do(func() { close(set) })
			if err != nil {
				is(t, "write", err, unix.EDQUOT)
			}
			return err != nil
		})
		check(t, os.Remove(m.path("file")))
		// In a folder it may have been cut before the mount knew of the limit: then that is found when it is counted anew.
		waitUntil(t, "the drive holds what fits", func() bool { return s.quota(t, alice).Bytes <= 1<<20 })
		m.unmount(t)
	})
}

// Two mounts of one drive together write no more than fits, and whatever was written and closed without an error is there.
func TestTwoMountsShareAQuota(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		mounts := []*mount{s.mount(t, alice), s.mount(t, alice)}
		s.limit(t, alice, "8M", "none", mounts[0])
		s.limit(t, alice, "8M", "none", mounts[1])
		const size = 300_000
		var written atomic.Int64
		var wait sync.WaitGroup
		kept := make([]map[string]bool, 4)
		for i := range kept {
			kept[i] = make(map[string]bool)
			wait.Go(func() {
				for j := range 40 {
					name := fmt.Sprintf("%d-%d", i, j)
					err := os.WriteFile(mounts[i%2].path(name), bytes.Repeat([]byte{'a' + byte(i)}, size), 0o600)
					if err == nil {
						written.Add(size)
						kept[i][name] = true
					} else if !errors.Is(err, unix.EDQUOT) {
						t.Errorf("write %s: %v", name, err)
					}
				}
			})
		}
		wait.Wait()
		if q := s.quota(t, alice); q.Bytes > 8<<20 || written.Load() > 8<<20 || written.Load() < 4<<20 {
			t.Errorf("the drive holds %+v, and %d bytes were written", q, written.Load())
		}
		for _, m := range mounts {
			for i := range kept {
				for name := range kept[i] {
					if readFile(t, m.path(name)) != strings.Repeat(string(rune('a'+i)), size) {
						t.Errorf("%s is not what was written", name)
					}
				}
			}
		}
		for _, m := range mounts {
			m.unmount(t)
		}
		s.checker().mediafs(t, "check", "--store", s.address).ok(t)
	})
}

// A program that is killed while it writes leaves the usage exact in a database, and a folder is counted anew at the next mount.
func TestAQuotaAfterAKill(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		s.mount(t, alice).unmount(t) // makes the drive
		s.limit(t, alice, "64M", "1000", nil)
		for round := range 3 {
			m := s.mount(t, alice)
			var some atomic.Int64
			enough := make(chan struct{})
			var wait sync.WaitGroup
			for i := range 4 {
				wait.Go(func() {
					for j := 0; ; j++ {
						if os.WriteFile(m.path(fmt.Sprintf("%d-%d", i, j%20)), make([]byte, 200_000), 0o600) != nil {
							return // killed
						}
						if some.Add(1) == int64(20+10*round) {
							close(enough)
						}
						if j%7 == 0 {
							_ = os.Remove(m.path(fmt.Sprintf("%d-%d", i, j%20)))
						}
					}
				})
			}
			<-enough
			m.kill(t)
			m.clear(t)
			wait.Wait()
		}
		m := s.mount(t, alice)
		if s.kind == folder {
			m.space(t) // has the limits looked for
		}
		waitUntil(t, "the usage is what is there", func() bool {
			q, files, blocks := s.quota(t, alice), int64(0), int64(0)
			for _, name := range names(t, m.point) {
				var st unix.Stat_t
				check(t, unix.Stat(m.path(name), &st))
				files, blocks = files+1, blocks+st.Blocks*512
			}
			return q.Files == files && (s.kind == postgres || q.Bytes == blocks)
		})
		m.unmount(t)
		s.checker().mediafs(t, "check", "--store", s.address).ok(t)
	})
}
