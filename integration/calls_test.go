package integration

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A call is a system call, or a few that belong together, that a process makes on a drive and on a native folder alike.
// What a call has no use for is zero.
type call struct {
	Name          string
	Handle, Other int    // what is open, by a number that the open or mmap that made it was given
	Path, To      string // from the root of the tree; "" is the root itself
	Flags         int
	Mode          uint32
	Off, OtherOff int64
	Length        int64
	Seed          int // of the bytes that are written
	UID, GID      int
	Atime, Mtime  int64  // nanoseconds, or timeNow or timeOmit
	Attr          string // name of an extended attribute
}

const (
	timeNow  int64 = 1<<63 - 1
	timeOmit int64 = 1<<63 - 2
)

// String has only the fields that are used.
func (c call) String() string {
	var b strings.Builder
	b.WriteString(c.Name)
	fields := reflect.ValueOf(c)
	for i := 1; i < fields.NumField(); i++ {
		if field := fields.Field(i); !field.IsZero() {
			format := " %s=%v"
			switch fields.Type().Field(i).Name {
			case "Path", "To":
				format = " %s=%q"
			case "Flags":
				format = " %s=%#x"
			case "Mode":
				format = " %s=%#o"
			}
			fmt.Fprintf(&b, format, strings.ToLower(fields.Type().Field(i).Name), field.Interface())
		}
	}
	return b.String()
}

// An answer is what came of a call on one of both.
type answer struct {
	Errno syscall.Errno
	N     int64
	Data  []byte
	Names []string // sorted
	Stat  facts
}

// facts are what both must say alike of a node.
type facts struct {
	Mode, Nlink, UID, GID uint32
	Rdev                  uint64
	Size                  int64 // of what is not a folder
	Mtime                 int64 // nanoseconds; byClock unless somebody has set it
}

// byClock stands for the times that no call has set: calls set none that is later than lastSet.
const (
	byClock = int64(1) << 62
	lastSet = int64(1e18) // nanoseconds: in 2001
)

func factsOf(st *unix.Stat_t) facts {
	f := facts{
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Size: st.Size,
		Mtime: unix.TimespecToNsec(st.Mtim),
	}
	if f.Mtime > lastSet {
		f.Mtime = byClock
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		f.Size = 0
	case unix.S_IFIFO:
		f.Mtime = 0
	}
	return f
}

func (a *answer) String() string {
	var parts []string
	if a.Errno != 0 {
		parts = append(parts, unix.ErrnoName(a.Errno))
	}
	if a.N != 0 {
		parts = append(parts, fmt.Sprint(a.N))
	}
	if a.Data != nil {
		parts = append(parts, fmt.Sprintf("%d bytes", len(a.Data)))
	}
	if a.Names != nil {
		parts = append(parts, fmt.Sprintf("%q", a.Names))
	}
	if a.Stat != (facts{}) {
		parts = append(parts, fmt.Sprintf("%+v (mode %o)", a.Stat, a.Stat.Mode))
	}
	return cmp.Or(strings.Join(parts, ", "), "done")
}

// differsFrom says how an answer differs from what is right; "" if it does not.
func (a *answer) differsFrom(want *answer) string {
	if reflect.DeepEqual(a, want) {
		return ""
	}
	said := fmt.Sprintf("the drive says %v, the native folder %v", a, want)
	if len(a.Data) != len(want.Data) || bytes.Equal(a.Data, want.Data) {
		return said
	}
	first, last, bad := -1, 0, 0
	for i := range a.Data {
		if a.Data[i] != want.Data[i] {
			if first < 0 {
				first = i
			}
			last = i
			bad++
		}
	}
	return fmt.Sprintf("%s: %d bytes differ, from %d (%d, want %d) to %d", said, bad, first, a.Data[first], want.Data[first], last)
}

// A side is a tree that calls are made on, and what this process has open there.
type side struct {
	root string
	open map[int]*openFile
}

// An openFile is a descriptor, or a mapping and a descriptor of what it maps.
type openFile struct {
	fd     int
	mapped []byte
	off    int64 // where the mapping begins in the file
}

func (o *openFile) close() error {
	var err error
	if o.mapped != nil {
		err = unix.Munmap(o.mapped)
	}
	return errors.Join(err, unix.Close(o.fd))
}

func init() {
	helpers["calls"] = makeCalls
}

// makeCalls makes the calls that it reads on both sides, first on the native one.
func makeCalls([]string) error {
	debug.SetPanicOnFault(true) // SIGBUS of a mapped page that is past the end
	syscall.Umask(0o022)
	sides := []*side{{}, {}}
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	for {
		var c call
		switch err := in.Decode(&c); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var answers [2]answer
		switch c.Name {
		case "become":
			answers[0].set(errors.Join(syscall.Setgroups(nil), syscall.Setresgid(c.GID, c.GID, c.GID), syscall.Setresuid(c.UID, c.UID, c.UID)))
		case "begin": // with the trees at Path (native) and To (the drive), and nothing open
			for i, s := range sides {
				for _, o := range s.open {
					_ = o.close() // what is open on a drive whose program was killed can't be closed well
				}
				sides[i] = &side{root: []string{c.Path, c.To}[i], open: make(map[int]*openFile)}
			}
		default:
			for i, s := range sides {
				s.make(&c, &answers[i])
			}
		}
		if err := out.Encode(&answers); err != nil {
			return err
		}
	}
}

func (a *answer) set(err error) {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		a.Errno = errno
	case err != nil:
		panic(err)
	}
}

// aligned makes a buffer that may be read into and written from with O_DIRECT.
func aligned(n int64) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % page
	return b[skip : skip+uintptr(n) : skip+uintptr(n)]
}

// content makes the bytes that a call writes.
func (c *call) content() []byte {
	b := aligned(c.Length)
	for i := range b {
		b[i] = byte(c.Seed + i%251 + i/4096)
	}
	return b
}

// make makes a call. How it ends, also in a fault, is in the answer.
func (s *side) make(c *call, a *answer) {
	defer func() {
		if fault := recover(); fault != nil {
			if _, is := fault.(interface{ Addr() uintptr }); !is {
				panic(fault)
			}
			a.Errno = unix.EFAULT
		}
	}()
	if c.Handle != 0 && c.Name != "open" {
		o := s.open[c.Handle]
		if o == nil {
			panic(fmt.Sprintf("%v: not open", c))
		}
		s.makeOnHandle(c, a, o)
		return
	}
	path, to := filepath.Join(s.root, c.Path), filepath.Join(s.root, c.To)
	var err error
	switch c.Name {
	case "open":
		var fd int
		// Whoever opens a pipe does not wait for the other end.
		if fd, err = unix.Open(path, c.Flags|unix.O_NONBLOCK|unix.O_CLOEXEC, c.Mode); err == nil {
			s.open[c.Handle] = &openFile{fd: fd}
		}
	case "mkdir":
		err = unix.Mkdir(path, c.Mode)
	case "mknod":
		err = unix.Mknod(path, c.Mode, 0)
	case "symlink":
		err = unix.Symlink(c.To, path)
	case "link":
		err = unix.Link(path, to)
	case "unlink":
		err = unix.Unlink(path)
	case "rmdir":
		err = unix.Rmdir(path)
	case "rename":
		err = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, uint(c.Flags))
	case "readlink":
		buffer := make([]byte, 4096)
		var n int
		n, err = unix.Readlink(path, buffer)
		a.Data = buffer[:max(n, 0)]
	case "readdir":
		a.Names, err = list(path)
	case "stat":
		var st unix.Stat_t
		if err = unix.Fstatat(unix.AT_FDCWD, path, &st, c.Flags); err == nil {
			a.Stat = factsOf(&st)
		}
	case "access":
		err = unix.Faccessat(unix.AT_FDCWD, path, c.Mode, c.Flags)
	case "statfs":
		var st unix.Statfs_t
		err = unix.Statfs(path, &st)
		a.N = st.Namelen
	case "truncate":
		err = unix.Truncate(path, c.Length)
	case "chmod":
		err = unix.Chmod(path, c.Mode)
	case "chown":
		err = unix.Fchownat(unix.AT_FDCWD, path, c.UID, c.GID, c.Flags)
	case "utimensat":
		err = unix.UtimesNanoAt(unix.AT_FDCWD, path, c.times(), c.Flags)
	case "setxattr":
		err = unix.Lsetxattr(path, c.Attr, c.content(), c.Flags)
	case "getxattr":
		buffer := make([]byte, 4096)
		var n int
		n, err = unix.Lgetxattr(path, c.Attr, buffer)
		a.Data = buffer[:max(n, 0)]
	case "listxattr":
		buffer := make([]byte, 4096)
		var n int
		n, err = unix.Llistxattr(path, buffer)
		a.setNames(buffer[:max(n, 0)])
	case "removexattr":
		err = unix.Lremovexattr(path, c.Attr)
	case "content": // of a regular file, opened and read to its end
		a.Data, err = contentOf(path)
	case "sync": // a file, opened just for that
		var fd int
		if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			err = errors.Join(unix.Fsync(fd), unix.Close(fd))
		}
	default:
		panic("no such call: " + c.Name)
	}
	a.set(err)
}

func (s *side) makeOnHandle(c *call, a *answer, o *openFile) {
	var n int
	var err error
	switch c.Name {
	case "close", "munmap":
		delete(s.open, c.Handle)
		err = o.close()
	case "read", "pread", "preadv":
		buffer := aligned(c.Length)
		switch c.Name {
		case "read":
			n, err = unix.Read(o.fd, buffer)
		case "pread":
			n, err = unix.Pread(o.fd, buffer, c.Off)
		case "preadv":
			third := len(buffer) / 3
			n, err = unix.Preadv(o.fd, [][]byte{buffer[:third], buffer[third:]}, c.Off)
		}
		a.Data = buffer[:max(n, 0)]
	case "write":
		n, err = unix.Write(o.fd, c.content())
		a.N = int64(n)
	case "pwrite":
		n, err = unix.Pwrite(o.fd, c.content(), c.Off)
		a.N = int64(n)
	case "pwritev":
		content := c.content()
		third := len(content) / 3
		n, err = unix.Pwritev(o.fd, [][]byte{content[:third], content[third:]}, c.Off)
		a.N = int64(n)
	case "lseek":
		a.N, err = unix.Seek(o.fd, c.Off, c.Flags)
	case "ftruncate":
		err = unix.Ftruncate(o.fd, c.Length)
	case "fallocate":
		err = unix.Fallocate(o.fd, uint32(c.Flags), c.Off, c.Length)
	case "copy_file_range":
		a.N, err = copyRange(o.fd, s.open[c.Other].fd, c.Off, c.OtherOff, c.Length)
	case "data": // what is between the holes
		a.Data, err = dataOf(o.fd)
	case "mmap": // as the number Other
		var mapped []byte
		if mapped, err = unix.Mmap(o.fd, c.Off, int(c.Length), c.Flags, unix.MAP_SHARED); err == nil {
			var fd int
			fd, err = unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 0)
			s.open[c.Other] = &openFile{fd: fd, mapped: mapped, off: c.Off}
		}
	case "load":
		a.Data = bytes.Clone(o.mapped[c.Off:min(c.Off+c.Length, int64(len(o.mapped)))])
	case "store":
		a.N, err = o.store(c)
	case "msync":
		err = unix.Msync(o.mapped, unix.MS_SYNC)
	case "fsync":
		err = unix.Fsync(o.fd)
	case "fdatasync":
		err = unix.Fdatasync(o.fd)
	case "sync_file_range":
		err = unix.SyncFileRange(o.fd, c.Off, c.Length, c.Flags)
	case "syncfs":
		err = unix.Syncfs(o.fd)
	case "readdir":
		a.Names, err = listOpen(o.fd)
	case "fstat":
		var st unix.Stat_t
		if err = unix.Fstat(o.fd, &st); err == nil {
			a.Stat = factsOf(&st)
		}
	case "fchmod":
		err = unix.Fchmod(o.fd, c.Mode)
	case "fchown":
		err = unix.Fchown(o.fd, c.UID, c.GID)
	case "futimens":
		times := c.times()
		if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(o.fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0); errno != 0 {
			err = errno
		}
	case "fsetxattr":
		err = unix.Fsetxattr(o.fd, c.Attr, c.content(), c.Flags)
	case "fgetxattr":
		buffer := make([]byte, 4096)
		n, err = unix.Fgetxattr(o.fd, c.Attr, buffer)
		a.Data = buffer[:max(n, 0)]
	default:
		panic("no such call on what is open: " + c.Name)
	}
	a.set(err)
}

func (c *call) times() []unix.Timespec {
	spec := func(ns int64) unix.Timespec {
		switch ns {
		case timeNow:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		case timeOmit:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		}
		return unix.NsecToTimespec(ns)
	}
	return []unix.Timespec{spec(c.Atime), spec(c.Mtime)}
}

func (a *answer) setNames(zeroEnded []byte) {
	// What a drive knows of its files, no local disk does.
	isFact := func(name string) bool { return name == "" || strings.HasPrefix(name, "user.mediafs.") }
	a.Names = slices.DeleteFunc(strings.Split(string(zeroEnded), "\x00"), isFact)
	slices.Sort(a.Names)
}

// contentOf reads a file to its end. A pipe that nobody writes to is at its end.
func contentOf(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	content := []byte{}
	for buffer := make([]byte, 1<<20); ; {
		n, err := unix.Read(fd, buffer)
		if err != nil || n == 0 {
			return content, errors.Join(err, unix.Close(fd))
		}
		content = append(content, buffer[:n]...)
	}
}

// list lists a folder: its names, each with the type that the listing gives.
func list(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	names, err := listOpen(fd)
	return names, errors.Join(err, unix.Close(fd))
}

// listOpen lists an open folder from its beginning, in small pieces.
func listOpen(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	names := []string{}
	for buffer := make([]byte, 512); ; {
		n, err := unix.Getdents(fd, buffer)
		if err != nil || n <= 0 {
			slices.Sort(names)
			// Where a folder ends is the file system's to say: go back to where all begin.
			if _, errSeek := unix.Seek(fd, 0, unix.SEEK_SET); err == nil {
				err = errSeek
			}
			return names, err
		}
		for e := range direntsOf(buffer[:n]) {
			names = append(names, fmt.Sprintf("%s %d", e.name, e.kind))
		}
	}
}

// copyRange copies until all is copied or the end of the source is there: one call may copy less.
func copyRange(from, to int, off, toOff, n int64) (copied int64, err error) {
	for copied < n {
		m, err := unix.CopyFileRange(from, &off, to, &toOff, int(n-copied), 0)
		if err != nil || m == 0 {
			return copied, err
		}
		copied += int64(m)
	}
	return copied, nil
}

// dataOf reads a file as a program does that leaves out the holes.
func dataOf(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	content := make([]byte, st.Size)
	for at := int64(0); at < st.Size; {
		begin, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(fd, begin, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		if _, err := unix.Pread(fd, content[begin:end], begin); err != nil {
			return nil, err
		}
		at = end
	}
	_, err := unix.Seek(fd, 0, unix.SEEK_SET)
	return content, err
}

// store writes to the mapped pages, as far as the file goes: what is written past its end is nobody's. It goes
// byte by byte, so that a fault comes where the file ends and not before.
func (o *openFile) store(c *call) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return 0, err
	}
	content := c.content()
	mapped := o.mapped[min(c.Off, int64(len(o.mapped))):]
	n := min(len(content), len(mapped))
	if room := st.Size - o.off - c.Off; int64(n) > room {
		n = int(max(room, 0))
	}
	for i := range n {
		mapped[i] = content[i]
	}
	return int64(n), nil
}

// A process makes calls on both sides, as a user of its own and with what it has open.
type process struct {
	cmd *exec.Cmd
	in  *gob.Encoder
	out *gob.Decoder
	// Both ends of the pipes are closed with the test.
	input, output *os.File
}

// callDeadline is for one call: longer than a mount lets any of its operations take.
const callDeadline = time.Minute

// startProcess starts a process that makes calls as a user.
func startProcess(t testing.TB, uid int) *process {
	t.Helper()
	p := &process{cmd: helper(t, "calls")}
	input, err := p.cmd.StdinPipe()
	check(t, err)
	output, err := p.cmd.StdoutPipe()
	check(t, err)
	p.input, p.output = input.(*os.File), output.(*os.File)
	p.in, p.out = gob.NewEncoder(input), gob.NewDecoder(output)
	check(t, p.cmd.Start())
	t.Cleanup(func() {
		check(t, p.input.Close())
		hangs := time.AfterFunc(callDeadline, func() { _ = p.cmd.Process.Kill() })
		defer hangs.Stop()
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("a process that makes calls: %v", err)
		}
	})
	if uid != os.Geteuid() {
		if answers, err := p.make(&call{Name: "become", UID: uid, GID: uid}); err != nil || answers[0].Errno != 0 {
			t.Fatalf("become user %d: %v, %v", uid, answers[0].Errno, err)
		}
	}
	return p
}

// make has a call made on both sides: the native folder answers first, then the drive.
func (p *process) make(c *call) (answers [2]answer, err error) {
	if err := p.output.SetReadDeadline(time.Now().Add(callDeadline)); err != nil {
		return answers, err
	}
	if err := p.in.Encode(c); err != nil {
		return answers, err
	}
	err = p.out.Decode(&answers)
	return answers, err
}
