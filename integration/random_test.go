package integration

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Random sequences of system calls on a drive and on a native folder: each says the same on both, or the drive is wrong. Two
// processes of ours and one of an ordinary user make the calls; what they open stays open for as long as they like. Now and then the
// drive is unmounted, or its program killed after everything was synced, and mounted again; then, and at the end, all that is in the
// two trees is compared. What fails is made as short as it can be, and printed; -rapid.seed repeats it.
//
// Differences that are meant, or can't be helped, are all here:
//
//   - atime: of what a program reads from the kernel's cache a drive hears nothing. TestReadingMovesTheTimeOfAccess tests the rest.
//   - chown(2) that changes neither owner nor group: to others than the owner it is refused where there are set-user-ID bits to take away.
//     The kernel does not tell it from what it asks for before a write, so on a drive it does nothing then.
//   - The attributes of a folder or pipe that is open and has no name any more: the kernel does not say who works in a folder or has
//     a pipe open, so it goes with its name.
//   - Times that the clock has set are compared as such, not their values.
//   - The mtime of a pipe: the kernel does not say who writes to one.
//   - The size of a folder says nothing.
//   - fallocate(2): file systems do not agree which modes set a time, so a time is set in the same step.
func TestADriveDoesWhatALocalDiskDoes(t *testing.T) {
	boundRandom(t)
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		r := newRandomRun(t, alice, mountForAll(t, s, alice), mayEnd)
		rapid.Check(t, r.sequence)
	})
}

// boundRandom sets how much is tried, unless the command line does.
func boundRandom(t *testing.T) {
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{
		"rapid.checks":     "20",
		"rapid.steps":      "60",
		"rapid.nofailfile": "true", // the seed is enough, and a test leaves no files behind
	} {
		if !given[name] {
			check(t, flag.Set(name, value))
		}
	}
}

// A randomRun is a drive and a native folder that sequences of calls are made on, and the processes that make them.
type randomRun struct {
	t         *testing.T
	user      user
	mount     *mount
	processes []*process
	native    string // the folder that the native trees are in
	drive     string // the folder that those of the drive are in
	lives     life
	sequences int
}

// life is what may become of a mount while calls are made on it.
type life bool

const (
	mayEnd life = true  // it is unmounted and killed now and then, and mounted again
	stays  life = false // it is used by others too
)

// newRandomRun starts the processes for calls on a user's drive.
func newRandomRun(t *testing.T, u user, m *mount, lives life) *randomRun {
	t.Helper()
	r := &randomRun{t: t, user: u, mount: m, lives: lives, native: tempDir(t), processes: []*process{startProcess(t, os.Geteuid()), startProcess(t, os.Geteuid())}}
	if os.Geteuid() == 0 {
		r.processes = append(r.processes, startProcess(t, stranger))
	}
	drive, err := os.MkdirTemp(m.point, "run-")
	check(t, err)
	check(t, os.Chmod(drive, 0o755))
	r.drive = drive
	return r
}

// mountForAll mounts a user's drive so that others may use it too, if they may at all.
func mountForAll(t *testing.T, s *store, u user, options ...string) *mount {
	t.Helper()
	m := s.mount(t, u, append(options, forAll()...)...)
	check(t, os.Chmod(m.point, 0o755))
	return m
}

func forAll() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	return []string{"--allow-other"}
}

const (
	stranger  = 65534 // a user who owns nothing
	strangers = 2     // the number of their process
)

// A sequence is one under way: the two trees, and what is open on both.
type sequence struct {
	*randomRun
	*rapid.T
	trees [2]string // on the native side and on the drive
	open  []handle
	next  int // number of what is opened next
}

// A handle is what one of the processes has open on both sides.
type handle struct {
	number  int
	process int
	flags   int
	kind    uint32 // S_IFREG and so on
	mapped  int64  // the length of the mapping; 0: a descriptor
}

func (r *randomRun) sequence(t *rapid.T) {
	r.sequences++
	name := fmt.Sprintf("sequence-%d", r.sequences)
	s := &sequence{randomRun: r, T: t}
	var folders [2]string // one more around the tree, for what links lead out of it to
	for i, dir := range []string{r.native, r.drive} {
		folders[i] = filepath.Join(dir, name)
		s.trees[i] = filepath.Join(folders[i], "tree")
		for _, path := range []string{folders[i], s.trees[i]} {
			if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o777)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.begin()
	defer func() {
		s.begin() // with nothing open
		if err := errors.Join(os.RemoveAll(folders[0]), os.RemoveAll(folders[1])); err != nil {
			t.Error(err)
		}
	}()
	t.Repeat(map[string]func(*rapid.T){
		"open": s.openFile, "open more": s.openFile, "create": s.create, "close": s.close, "read": s.read, "write": s.write, "write more": s.write,
		"seek": s.seek, "truncate": s.truncate, "allocate": s.allocate, "copy": s.copy, "data": s.data, "map": s.mmap, "use a mapping": s.useMapping,
		"sync": s.sync, "rename": s.rename, "rename a file": s.renameFile, "unlink": s.unlink, "link": s.link, "symlink": s.symlink,
		"readlink": s.readlink, "mknod": s.mknod, "mkdir": s.mkdir, "rmdir": s.rmdir, "chmod": s.chmod, "chown": s.chown, "utimens": s.utimens,
		"xattr": s.xattr, "readdir": s.readdir, "stat": s.stat, "access": s.access, "statfs": s.statfs, "content": s.content,
		"mount again": s.mountAgain,
	})
	s.compare()
}

// begin has nothing open in any process.
func (s *sequence) begin() {
	s.open = nil
	for i := range s.processes {
		s.must(i, call{Name: "begin", Path: s.trees[0], To: s.trees[1]})
	}
}

// make makes a call in one of the processes, on both sides, and returns the answer that both give.
func (s *sequence) make(process int, c call) *answer {
	s.Helper()
	answers, err := s.processes[process].make(&c)
	if err != nil {
		// There is nothing to go on with, and nothing to make shorter.
		s.t.Fatalf("process %d: %v: %v", process, c, err)
	}
	want, got := &answers[0], &answers[1]
	if c.Name != "begin" {
		s.Logf("process %d: %v: %v", process, c, want)
	}
	if difference := got.differsFrom(want); difference != "" {
		s.Fatalf("process %d: %v: %s", process, c, difference)
	}
	return want
}

func (s *sequence) must(process int, c call) {
	s.Helper()
	if a := s.make(process, c); a.Errno != 0 {
		s.Fatalf("process %d: %v: %v", process, c, a.Errno)
	}
}

// The following draw what a call is about: mostly what makes sense.

func drawOf[T any](t *rapid.T, what string, from ...T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

func (s *sequence) drawProcess() int {
	return rapid.IntRange(0, len(s.processes)-1).Draw(s.T, "process")
}

// drawPath is the path of something of a kind, nine of ten times, if there is any.
func (s *sequence) drawPath(what string, kinds ...fs.FileMode) string {
	var found []string
	err := filepath.WalkDir(s.trees[0], func(path string, entry fs.DirEntry, err error) error {
		if err == nil && path != s.trees[0] && (len(kinds) == 0 || slices.Contains(kinds, entry.Type())) {
			found = append(found, strings.TrimPrefix(path, s.trees[0]+"/"))
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(found) == 0 || rapid.IntRange(0, 9).Draw(s.T, "any "+what) == 9 {
		return s.drawNewPath(what)
	}
	return drawOf(s.T, what, found...)
}

// drawNewPath is a path with a last name that may be there or not.
func (s *sequence) drawNewPath(what string) string {
	name := drawOf(s.T, "name of "+what, "a", "b", "c", "d")
	if rapid.IntRange(0, 3).Draw(s.T, "depth of "+what) < 3 {
		return name
	}
	return filepath.Join(s.drawPath("parent of "+what, fs.ModeDir, fs.ModeSymlink), name)
}

// drawHandle draws something that is open and fits.
func (s *sequence) drawHandle(fits func(handle) bool) handle {
	fitting := slices.DeleteFunc(slices.Clone(s.open), func(h handle) bool { return !fits(h) })
	if len(fitting) == 0 {
		s.Skip("nothing like that is open")
	}
	return drawOf(s.T, "handle", fitting...)
}

func isOpen(h handle) bool     { return h.mapped == 0 }
func isBuffered(h handle) bool { return isOpen(h) && h.flags&unix.O_DIRECT == 0 }
func isRegular(h handle) bool  { return h.kind == unix.S_IFREG && isOpen(h) }
func isFolder(h handle) bool   { return h.kind == unix.S_IFDIR && isOpen(h) }
func isMapping(h handle) bool  { return h.mapped != 0 }

// ours says whether the process may always set times.
func ours(h handle) bool { return h.process < strangers }

const page = 4096

// drawOffset prefers what is about the boundaries of pages and chunks.
func (s *sequence) drawOffset(what string) int64 {
	near := drawOf[int64](s.T, what+" near", 0, 0, page, 64<<10, 128<<10, 1<<20, 2<<20)
	return max(0, near+rapid.Int64Range(-5000, 5000).Draw(s.T, what))
}

func (s *sequence) drawLength() int64 {
	return rapid.Int64Range(1, drawOf[int64](s.T, "length up to", 1, 10, 5000, 70_000, 300_000)).Draw(s.T, "length")
}

func (s *sequence) drawMode() uint32 {
	return drawOf[uint32](s.T, "mode", 0o644, 0o600, 0o666, 0o755, 0o777, 0o400, 0, 0o2755, 0o4755, 0o1777, 0o2777)
}

// drawTimes are times that were set by somebody, or not.
func (s *sequence) drawTimes(c *call) {
	for _, ns := range []*int64{&c.Atime, &c.Mtime} {
		*ns = drawOf(s.T, "time", timeNow, timeOmit, -1_500_000_001, 1, lastSet-1, rapid.Int64Range(0, lastSet).Draw(s.T, "ns"))
	}
}

// setTimes ends what changes a time or not, as the file system likes.
func (s *sequence) setTimes(h handle) {
	s.must(h.process, call{Name: "futimens", Handle: h.number, Atime: 1, Mtime: lastSet})
}

// The following are the calls.

func (s *sequence) openFile(*rapid.T) { s.openWith(s.drawPath("file"), 0) }

func (s *sequence) create(*rapid.T) {
	s.openWith(s.drawNewPath("file"), unix.O_CREAT|drawOf(s.T, "exclusive", 0, unix.O_EXCL))
}

func (s *sequence) openWith(path string, flags int) {
	flags |= drawOf(s.T, "access", unix.O_RDWR, unix.O_RDWR, unix.O_RDONLY, unix.O_WRONLY)
	flags |= drawOf(s.T, "flags", 0, 0, 0, unix.O_APPEND, unix.O_TRUNC, unix.O_DIRECT, unix.O_SYNC, unix.O_DSYNC, unix.O_NOFOLLOW, unix.O_DIRECTORY)
	process := s.drawProcess()
	s.next++
	h := handle{number: s.next, process: process, flags: flags}
	if s.make(process, call{Name: "open", Handle: h.number, Path: path, Flags: flags, Mode: s.drawMode()}).Errno != 0 {
		return
	}
	a := s.make(process, call{Name: "fstat", Handle: h.number})
	h.kind = a.Stat.Mode & unix.S_IFMT
	s.open = append(s.open, h)
}

func (s *sequence) close(*rapid.T) {
	h := s.drawHandle(func(handle) bool { return true })
	s.make(h.process, call{Name: "close", Handle: h.number})
	s.open = slices.DeleteFunc(s.open, func(other handle) bool { return other == h })
}

// align rounds to what O_DIRECT wants.
func (h handle) align(ns ...*int64) {
	if h.flags&unix.O_DIRECT != 0 {
		for _, n := range ns {
			*n = (*n + page - 1) / page * page
		}
	}
}

func (s *sequence) read(*rapid.T) {
	h := s.drawHandle(isOpen)
	c := call{Name: drawOf(s.T, "how", "pread", "preadv", "read"), Handle: h.number, Off: s.drawOffset("offset"), Length: s.drawLength()}
	switch {
	case c.Name != "read":
	case h.flags&unix.O_DIRECT != 0:
		c.Name = "pread" // the position need not be aligned
	default:
		c.Off = 0
	}
	if c.Name == "preadv" && h.flags&unix.O_DIRECT != 0 {
		c.Name = "pread"
	}
	h.align(&c.Off, &c.Length)
	s.make(h.process, c)
}

func (s *sequence) write(*rapid.T) {
	h := s.drawHandle(isOpen)
	c := call{
		Name: drawOf(s.T, "how", "pwrite", "pwritev", "write"), Handle: h.number,
		Off: s.drawOffset("offset"), Length: s.drawLength(), Seed: rapid.IntRange(1, 250).Draw(s.T, "seed"),
	}
	if h.flags&unix.O_DIRECT != 0 {
		c.Name = "pwrite"
	}
	if c.Name == "write" {
		c.Off = 0
	}
	h.align(&c.Off, &c.Length)
	s.make(h.process, c)
}

func (s *sequence) seek(*rapid.T) {
	h := s.drawHandle(isRegular)
	whence := drawOf(s.T, "whence", unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END)
	off := s.drawOffset("offset") - drawOf[int64](s.T, "back", 0, 70_000)
	s.make(h.process, call{Name: "lseek", Handle: h.number, Flags: whence, Off: off})
}

func (s *sequence) truncate(*rapid.T) {
	if rapid.Bool().Draw(s.T, "by path") {
		s.make(s.drawProcess(), call{Name: "truncate", Path: s.drawPath("file", 0, fs.ModeSymlink), Length: s.drawOffset("size")})
		return
	}
	h := s.drawHandle(isOpen)
	s.make(h.process, call{Name: "ftruncate", Handle: h.number, Length: s.drawOffset("size")})
}

func (s *sequence) allocate(*rapid.T) {
	h := s.drawHandle(func(h handle) bool { return isRegular(h) && ours(h) })
	mode := drawOf(s.T, "mode", 0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	a := s.make(h.process, call{Name: "fallocate", Handle: h.number, Flags: mode, Off: s.drawOffset("offset"), Length: s.drawLength()})
	if a.Errno == 0 {
		s.setTimes(h)
	}
}

func (s *sequence) copy(*rapid.T) {
	// Copying to what is open with O_DIRECT is, on some file systems, writing with O_DIRECT.
	from := s.drawHandle(isBuffered)
	to := s.drawHandle(func(h handle) bool { return isBuffered(h) && h.process == from.process })
	s.make(from.process, call{
		Name: "copy_file_range", Handle: from.number, Other: to.number, Off: s.drawOffset("from"), OtherOff: s.drawOffset("to"), Length: s.drawLength(),
	})
}

func (s *sequence) data(*rapid.T) {
	h := s.drawHandle(func(h handle) bool { return isRegular(h) && isBuffered(h) && h.flags&unix.O_ACCMODE != unix.O_WRONLY })
	s.make(h.process, call{Name: "data", Handle: h.number})
}

func (s *sequence) mmap(*rapid.T) {
	h := s.drawHandle(isOpen)
	s.next++
	m := handle{number: s.next, process: h.process, mapped: page * rapid.Int64Range(1, 40).Draw(s.T, "pages")}
	off := s.drawOffset("offset") / page * page
	protection := unix.PROT_READ
	if ours(h) && rapid.Bool().Draw(s.T, "to store") {
		m.flags, protection = unix.O_RDWR, unix.PROT_READ|unix.PROT_WRITE
	}
	c := call{Name: "mmap", Handle: h.number, Other: m.number, Off: off, Length: m.mapped, Flags: protection}
	if s.make(h.process, c).Errno == 0 {
		s.open = append(s.open, m)
	}
}

func (s *sequence) useMapping(*rapid.T) {
	m := s.drawHandle(isMapping)
	c := call{Name: drawOf(s.T, "what", "store", "load", "store", "msync"), Handle: m.number}
	if c.Name == "store" && m.flags != unix.O_RDWR {
		c.Name = "load"
	}
	if c.Name != "msync" {
		c.Off = rapid.Int64Range(0, m.mapped-1).Draw(s.T, "at")
		c.Length = min(s.drawLength(), m.mapped-c.Off)
	}
	if c.Name == "store" {
		c.Seed = rapid.IntRange(1, 250).Draw(s.T, "seed")
	}
	s.make(m.process, c)
	if c.Name == "store" {
		// When a time changes between a store and msync is the kernel's choice.
		if rapid.Bool().Draw(s.T, "msync") {
			s.must(m.process, call{Name: "msync", Handle: m.number})
		}
		s.setTimes(m)
	}
}

func (s *sequence) sync(*rapid.T) {
	h := s.drawHandle(isOpen)
	c := call{Name: drawOf(s.T, "how", "fsync", "fdatasync", "sync_file_range", "syncfs"), Handle: h.number}
	if c.Name == "sync_file_range" {
		c.Off, c.Length = s.drawOffset("offset"), s.drawLength()
		c.Flags = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	}
	s.make(h.process, c)
}

func (s *sequence) rename(*rapid.T) { s.renameFrom(s.drawPath("from")) }

func (s *sequence) renameFile(*rapid.T) { s.renameFrom(s.drawPath("from", 0)) }

func (s *sequence) renameFrom(from string) {
	to := drawOf(s.T, "to", s.drawNewPath("new"), s.drawPath("old"))
	flags := drawOf(s.T, "flags", 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE)
	s.make(s.drawProcess(), call{Name: "rename", Path: from, To: to, Flags: flags})
}

func (s *sequence) unlink(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "unlink", Path: s.drawPath("file", 0, 0, fs.ModeSymlink, fs.ModeNamedPipe)})
}

func (s *sequence) link(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "link", Path: s.drawPath("from"), To: s.drawNewPath("to")})
}

func (s *sequence) symlink(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "symlink", Path: s.drawNewPath("link"), To: drawOf(s.T, "target", "a", "b", "../a", "c/b", ".", "nowhere\xff")})
}

func (s *sequence) readlink(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "readlink", Path: s.drawPath("link", fs.ModeSymlink)})
}

func (s *sequence) mknod(*rapid.T) {
	kind := drawOf[uint32](s.T, "kind", unix.S_IFIFO, unix.S_IFREG, unix.S_IFSOCK)
	s.make(s.drawProcess(), call{Name: "mknod", Path: s.drawNewPath("node"), Mode: kind | s.drawMode()})
}

func (s *sequence) mkdir(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "mkdir", Path: s.drawNewPath("folder"), Mode: s.drawMode()})
}

func (s *sequence) rmdir(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "rmdir", Path: s.drawPath("folder", fs.ModeDir)})
}

func (s *sequence) chmod(*rapid.T) {
	if rapid.Bool().Draw(s.T, "by path") {
		s.make(s.drawProcess(), call{Name: "chmod", Path: s.drawPath("node"), Mode: s.drawMode()})
		return
	}
	h := s.drawHandle(isRegular)
	s.make(h.process, call{Name: "fchmod", Handle: h.number, Mode: s.drawMode()})
}

func (s *sequence) chown(*rapid.T) {
	ids := []int{-1, os.Geteuid(), stranger}
	c := call{UID: drawOf(s.T, "uid", ids...), GID: drawOf(s.T, "gid", ids...)}
	if c.UID == -1 && c.GID == -1 {
		c.UID = os.Geteuid()
	}
	if rapid.Bool().Draw(s.T, "by path") {
		c.Name, c.Path, c.Flags = "chown", s.drawPath("node"), drawOf(s.T, "flags", 0, unix.AT_SYMLINK_NOFOLLOW)
		s.make(s.drawProcess(), c)
		return
	}
	h := s.drawHandle(isRegular)
	c.Name, c.Handle = "fchown", h.number
	s.make(h.process, c)
}

func (s *sequence) utimens(*rapid.T) {
	var c call
	s.drawTimes(&c)
	if rapid.Bool().Draw(s.T, "by path") {
		c.Name, c.Path, c.Flags = "utimensat", s.drawPath("node"), drawOf(s.T, "flags", 0, unix.AT_SYMLINK_NOFOLLOW)
		s.make(s.drawProcess(), c)
		return
	}
	h := s.drawHandle(isRegular)
	c.Name, c.Handle = "futimens", h.number
	s.make(h.process, c)
}

func (s *sequence) xattr(*rapid.T) {
	c := call{
		Name: drawOf(s.T, "what", "setxattr", "setxattr", "getxattr", "listxattr", "removexattr", "fsetxattr", "fgetxattr"),
		Attr: drawOf(s.T, "attribute", "user.a", "user.b", "trusted.c", "nospace"),
	}
	if strings.HasSuffix(c.Name, "setxattr") {
		c.Flags = drawOf(s.T, "flags", 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE)
		c.Length, c.Seed = rapid.Int64Range(0, 200).Draw(s.T, "length"), 1
	}
	if c.Name == "listxattr" {
		c.Attr = ""
	}
	if c.Name[0] == 'f' {
		h := s.drawHandle(isRegular)
		c.Handle = h.number
		s.make(h.process, c)
		return
	}
	c.Path = s.drawPath("node")
	s.make(s.drawProcess(), c)
}

func (s *sequence) readdir(*rapid.T) {
	if rapid.Bool().Draw(s.T, "by path") {
		s.make(s.drawProcess(), call{Name: "readdir", Path: s.drawPath("folder", fs.ModeDir)})
		return
	}
	h := s.drawHandle(isFolder)
	s.make(h.process, call{Name: "readdir", Handle: h.number})
}

func (s *sequence) stat(*rapid.T) {
	if rapid.Bool().Draw(s.T, "by path") {
		s.make(s.drawProcess(), call{Name: "stat", Path: s.drawPath("node"), Flags: drawOf(s.T, "flags", 0, unix.AT_SYMLINK_NOFOLLOW)})
		return
	}
	h := s.drawHandle(isRegular)
	s.make(h.process, call{Name: "fstat", Handle: h.number})
}

func (s *sequence) access(*rapid.T) {
	mode := drawOf[uint32](s.T, "mode", unix.F_OK, unix.R_OK, unix.W_OK, unix.X_OK, unix.R_OK|unix.W_OK)
	s.make(s.drawProcess(), call{Name: "access", Path: s.drawPath("node"), Mode: mode})
}

func (s *sequence) statfs(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "statfs", Path: s.drawPath("node")})
}

func (s *sequence) content(*rapid.T) {
	s.make(s.drawProcess(), call{Name: "content", Path: s.drawPath("file", 0)})
}

// mountAgain has the drive unmounted and mounted again, or its program killed after all was synced; nothing is open then.
func (s *sequence) mountAgain(*rapid.T) {
	if s.lives == stays || rapid.IntRange(0, 3).Draw(s.T, "really") != 3 {
		s.Skip("not now")
	}
	m := s.mount
	if rapid.Bool().Draw(s.T, "kill") {
		for _, h := range s.open {
			if h.mapped != 0 {
				s.must(h.process, call{Name: "msync", Handle: h.number})
			}
		}
		s.eachPath(func(path string, kind fs.FileMode) {
			if kind == 0 || kind == fs.ModeDir {
				s.make(0, call{Name: "sync", Path: path})
			}
		})
		m.kill(s.t)
		s.begin()
		m.clear(s.t)
	} else {
		s.begin()
		m.unmount(s.t)
	}
	s.mount = m.s.mountAt(s.t, s.user, m.point, forAll()...)
	s.compare()
}

// eachPath calls for everything in the tree.
func (s *sequence) eachPath(do func(path string, kind fs.FileMode)) {
	err := filepath.WalkDir(s.trees[0], func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			do(strings.TrimPrefix(strings.TrimPrefix(path, s.trees[0]), "/"), entry.Type())
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// compare compares all that is in the two trees.
func (s *sequence) compare() {
	s.eachPath(func(path string, kind fs.FileMode) {
		s.make(0, call{Name: "stat", Path: path, Flags: unix.AT_SYMLINK_NOFOLLOW})
		s.make(0, call{Name: "listxattr", Path: path})
		for _, attr := range []string{"user.a", "user.b", "trusted.c"} {
			s.make(0, call{Name: "getxattr", Path: path, Attr: attr})
		}
		switch kind {
		case 0:
			s.make(0, call{Name: "content", Path: path})
		case fs.ModeDir:
			s.make(0, call{Name: "readdir", Path: path})
		case fs.ModeSymlink:
			s.make(0, call{Name: "readlink", Path: path})
		}
	})
}
