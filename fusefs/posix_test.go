package fusefs

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/fusefs/fusetest"
)

// The stores are tested with it in package integration.
func TestPOSIX(t *testing.T) {
	suite := fusetest.POSIX()
	for _, name := range slices.Sorted(maps.Keys(suite)) {
		t.Run(name, func(t *testing.T) {
			_, dir := mount(t, newDrive(t), Options{})
			suite[name](t, dir)
		})
	}
}

func init() {
	helpers["lock"] = func(args []string) error {
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if !errors.Is(err, unix.EAGAIN) {
			return errors.Join(errors.New("the lock is not held"), err)
		}
		return nil
	}
}

// The kernel finds a node by its name and then opens it by its number. If the name is replaced in between, and again when the kernel
// tries for the second time, the answer is ESTALE. Nothing else may happen.
func TestNameThatIsReplacedAllTheTimeLeadsToOneOrTheOther(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	path, next := filepath.Join(dir, "name"), filepath.Join(dir, "next")
	must(t, os.WriteFile(filepath.Join(dir, "target"), []byte("through the link"), 0o644))
	must(t, os.WriteFile(path, []byte("itself"), 0o644))
	const rounds = 300
	replaced := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < rounds && err == nil; i++ {
			if i%2 == 0 {
				err = os.Symlink("target", next)
			} else {
				err = os.WriteFile(next, []byte("itself"), 0o644)
			}
			err = errors.Join(err, os.Rename(next, path))
		}
		replaced <- err
	}()
	for range rounds {
		got, err := os.ReadFile(path)
		if errors.Is(err, unix.ESTALE) {
			continue
		}
		if content := string(got); err != nil || content != "itself" && content != "through the link" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	must(t, soon(t, "the end of the replacing", replaced))
}

func TestLocksAreHeldByProcesses(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	path := filepath.Join(dir, "locked")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	if err := helper(t, 0, "lock", path).Run(); err != nil {
		t.Errorf("another process asks for the lock: %v, want EAGAIN", err)
	}
}

func TestFilesWithoutNamesAreRefused(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	_, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	wantErr(t, "open with O_TMPFILE", err, unix.EOPNOTSUPP)
}

func TestRenameWithFlags(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.WriteFile(a, []byte("a"), 0o644))
	must(t, os.WriteFile(b, []byte("b"), 0o644))

	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	wantErr(t, "RENAME_NOREPLACE over a name", rename(unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErr(t, "RENAME_WHITEOUT", rename(unix.RENAME_WHITEOUT), unix.EINVAL)
	must(t, rename(unix.RENAME_EXCHANGE))
	got, err := os.ReadFile(a)
	must(t, err)
	if string(got) != "b" {
		t.Errorf("after RENAME_EXCHANGE a holds %q, want what b held", got)
	}
}

func TestAttributesComeBackAsSet(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o640))
	for _, want := range []unix.Timespec{
		{Sec: 1_700_000_000, Nsec: 123_456_789},
		{Sec: 0, Nsec: 0},
		{Sec: -1, Nsec: 999_999_999}, // before 1970
		{Sec: -2_000_000_000, Nsec: 1},
		{Sec: 8_000_000_000, Nsec: 999_999_999}, // beyond 32 bits
	} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{want, want}, 0))
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Mtim != want || st.Atim != want {
			t.Errorf("got times %v and %v, want %v", st.Atim, st.Mtim, want)
		}
	}
	far := unix.Timespec{Sec: 1 << 40}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{far, far}, 0))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if want := maxSeconds; st.Mtim.Sec != want {
		t.Errorf("a time too far away: got %d s, want the last that can be kept, %d s", st.Mtim.Sec, want)
	}
}

func TestSpecialFiles(t *testing.T) {
	needRoot(t)
	_, dir := mount(t, newDrive(t), Options{})
	for name, want := range map[string]struct {
		mode uint32
		dev  int
	}{
		"fifo":         {unix.S_IFIFO | 0o600, 0},
		"socket":       {unix.S_IFSOCK | 0o600, 0},
		"char device":  {unix.S_IFCHR | 0o600, int(unix.Mkdev(259, 70_000))},
		"block device": {unix.S_IFBLK | 0o600, int(unix.Mkdev(8, 1))},
		"plain file":   {unix.S_IFREG | 0o600, 0},
	} {
		path := filepath.Join(dir, name)
		must(t, unix.Mknod(path, want.mode, want.dev))
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if st.Mode != want.mode || st.Rdev != uint64(want.dev) {
			t.Errorf("%s: got mode %o device %d, want %o and %d", name, st.Mode, st.Rdev, want.mode, want.dev)
		}
	}
}

func TestNamesAndTargetsHaveLimits(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	must(t, os.WriteFile(filepath.Join(dir, strings.Repeat("n", 255)), nil, 0o644))
	long := filepath.Join(dir, strings.Repeat("n", 256))
	wantErr(t, "a name of 256 bytes", os.WriteFile(long, nil, 0o644), unix.ENAMETOOLONG)
	_, err := os.Lstat(long)
	wantErr(t, "stat of a name of 256 bytes", err, unix.ENAMETOOLONG)
	loop := filepath.Join(dir, "loop")
	must(t, os.Symlink("loop", loop))
	_, err = os.Stat(loop)
	wantErr(t, "a link to itself", err, unix.ELOOP)
}

func TestExtendedAttributes(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, unix.Setxattr(path, "user.a", []byte("value"), unix.XATTR_CREATE))
	must(t, unix.Setxattr(path, "user.b", nil, 0))
	wantErr(t, "XATTR_CREATE again", unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
	wantErr(t, "XATTR_REPLACE of none", unix.Setxattr(path, "user.c", nil, unix.XATTR_REPLACE), unix.ENODATA)
	wantErr(t, "a name without a namespace", unix.Setxattr(path, "nonsense", nil, 0), unix.EOPNOTSUPP)
	wantErr(t, "an access list", unix.Setxattr(path, "system.posix_acl_access", make([]byte, 28), 0), unix.EOPNOTSUPP)

	size, err := unix.Getxattr(path, "user.a", nil)
	must(t, err)
	if size != len("value") {
		t.Errorf("size asked for: got %d, want %d", size, len("value"))
	}
	_, err = unix.Getxattr(path, "user.a", make([]byte, 2))
	wantErr(t, "a buffer too small", err, unix.ERANGE)
	buffer := make([]byte, 1000)
	n, err := unix.Getxattr(path, "user.a", buffer)
	must(t, err)
	if got := string(buffer[:n]); got != "value" {
		t.Errorf("got value %q, want %q", got, "value")
	}
	_, err = unix.Listxattr(path, make([]byte, 3))
	wantErr(t, "a list too small", err, unix.ERANGE)
	n, err = unix.Listxattr(path, buffer)
	must(t, err)
	names := strings.Split(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00")
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, blobstore.XattrFacts) })
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, blobstore.XattrFacts) }) // the drive's own
	if want := []string{"user.a", "user.b"}; !slices.Equal(names, want) {
		t.Errorf("got names %q, want %q", names, want)
	}
	must(t, unix.Removexattr(path, "user.a"))
	_, err = unix.Getxattr(path, "user.a", buffer)
	wantErr(t, "a removed attribute", err, unix.ENODATA)
}

// Programs that copy all attributes set these too, and must not fail.
func TestWhatTheDriveKnowsStaysWhateverIsSet(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("content"), 0o644))
	id := make([]byte, 100)
	n, err := unix.Getxattr(path, blobstore.XattrID, id)
	must(t, err)
	for _, name := range []string{blobstore.XattrID, blobstore.XattrWidth, blobstore.XattrAccessCount} {
		must(t, unix.Setxattr(path, name, []byte("mine"), 0))
		must(t, unix.Removexattr(path, name))
	}
	again := make([]byte, 100)
	m, err := unix.Getxattr(path, blobstore.XattrID, again)
	must(t, err)
	if string(id[:n]) != string(again[:m]) {
		t.Errorf("the id was %s and is %s", id[:n], again[:m])
	}
	_, err = unix.Getxattr(path, blobstore.XattrWidth, nil)
	wantErr(t, "the width of a text", err, unix.ENODATA)
	must(t, unix.Setxattr(path, blobstore.XattrJob, []byte("job"), unix.XATTR_CREATE))
	wantErr(t, "a job that is none", unix.Setxattr(path, blobstore.XattrJob, []byte("a\nb"), 0), unix.EINVAL)
}

func TestTrustedAttributesAreShownToRootAlone(t *testing.T) {
	needRoot(t)
	_, dir := mount(t, newDrive(t), Options{AllowOther: true})
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, errors.Join(unix.Setxattr(path, "trusted.a", nil, 0), unix.Setxattr(path, "user.b", nil, 0)))
	for uid, want := range map[uint32]string{0: "trusted.a\nuser.b", nobody: "user.b"} {
		said, err := shellAs(uid, dir, "getfattr -m - file | grep '\\.[ab]$' | sort")
		must(t, err)
		if said != want {
			t.Errorf("user %d sees %q, want %q", uid, said, want)
		}
	}
}

func TestAllocateSeekAndCopy(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	defer f.Close()
	const mb = 1 << 20
	_, err = f.WriteAt([]byte("end"), 8*mb)
	must(t, err)
	hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	must(t, err)
	if hole == 0 || hole > 8*mb {
		t.Errorf("SEEK_DATA from 0: got %d, want the data near %d", hole, 8*mb)
	}
	_, err = unix.Seek(int(f.Fd()), 9*mb, unix.SEEK_DATA)
	wantErr(t, "SEEK_DATA past the end", err, unix.ENXIO)

	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8*mb, mb))
	wantErr(t, "collapsing a range", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, mb), unix.EOPNOTSUPP)
	three := make([]byte, 3)
	_, err = f.ReadAt(three, 8*mb)
	must(t, err)
	if string(three) != "\x00\x00\x00" {
		t.Errorf("punched hole reads %q, want zeros", three)
	}

	_, err = f.WriteAt([]byte("copied"), 0)
	must(t, err)
	to, err := os.Create(filepath.Join(dir, "copy"))
	must(t, err)
	defer to.Close()
	var from int64
	n, err := unix.CopyFileRange(int(f.Fd()), &from, int(to.Fd()), nil, len("copied"), 0)
	must(t, err)
	got, err := os.ReadFile(to.Name())
	must(t, err)
	if n != len("copied") || string(got) != "copied" {
		t.Errorf("copied %d bytes %q, want %q", n, got, "copied")
	}
}

func TestSpaceIsThatOfTheDrive(t *testing.T) {
	drive := newDrive(t)
	_, dir := mount(t, drive, Options{})
	usage, err := drive.Usage(t.Context())
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if got := int64(st.Blocks) * st.Bsize; got != usage.TotalBytes {
		t.Errorf("size: got %d, want %d", got, usage.TotalBytes)
	}
	if got := int64(st.Ffree); got != usage.FreeFiles {
		t.Errorf("free files: got %d, want %d", got, usage.FreeFiles)
	}
	if st.Namelen != 255 {
		t.Errorf("longest name: got %d, want 255", st.Namelen)
	}
}
