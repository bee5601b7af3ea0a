package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore/memstore"
)

func TestMountIsListedAsAsked(t *testing.T) {
	_, dir := mount(t, newDrive(t), Options{FSName: "mediafs:al,ice"})
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[1] != dir {
			continue
		}
		if fields[0] != "mediafs:al,ice" || fields[2] != "fuse.mediafs" {
			t.Errorf("got name %q of type %q, want mediafs:al,ice of type fuse.mediafs", fields[0], fields[2])
		}
		options := "," + fields[3] + ","
		for _, want := range []string{"rw", "nosuid", "nodev", "default_permissions"} {
			if !strings.Contains(options, ","+want+",") {
				t.Errorf("options %s: %s is missing", fields[3], want)
			}
		}
		return
	}
	t.Errorf("%s is not mounted", dir)
}

func TestMountpointsThatCannotBeUsed(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	_, taken := mount(t, newDrive(t), Options{})
	dead := filepath.Join(t.TempDir(), "dead")
	must(t, os.Mkdir(dead, 0o755))
	killMount(t, dead)

	for _, c := range []struct {
		what, path string
		want       error
	}{
		{"a folder that is not there", filepath.Join(dir, "missing"), ErrMountpointMissing},
		{"a folder beneath a file", filepath.Join(file, "x"), ErrMountpointNotDir},
		{"a file", file, ErrMountpointNotDir},
		{"a folder with something in it", dir, ErrMountpointNotEmpty},
		{"a mount", taken, ErrMounted},
		{"a mount whose daemon died", dead, ErrStaleMount},
	} {
		m, err := New(newDrive(t), Options{Mountpoint: c.path})
		wantErr(t, c.what, err, c.want)
		if err != nil && !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: the error does not name %s: %v", c.what, c.path, err)
		}
		if m != nil {
			unmount(t, m)
		}
	}
}

func init() {
	// mount MOUNTPOINT [allow-other] mounts an empty drive, says "mounted" and its notes, and unmounts when stdin ends.
	helpers["mount"] = func(args []string) error {
		drive, err := memstore.New().Open(context.Background(), auth.Session{User: "alice", Role: auth.RoleUser})
		if err != nil {
			return err
		}
		m, err := New(drive, Options{Mountpoint: args[0], AllowOther: len(args) > 1})
		if err != nil {
			return err
		}
		fmt.Println("mounted", strings.Join(m.Notes(), "; "))
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return m.Unmount(ctx)
	}
}

// killMount leaves a dead mount in a folder until the test ends.
func killMount(t *testing.T, dir string) {
	t.Helper()
	command := helper(t, uint32(os.Geteuid()), "mount", dir)
	stdin, err := command.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	var said [7]byte
	_, err = io.ReadFull(stdout, said[:])
	must(t, err)
	must(t, command.Process.Kill())
	if err := command.Wait(); err == nil {
		t.Fatal("the helper was not killed")
	}
}

// needDeviceForAll skips a test, or fails it in CI, where only root may use FUSE. Debian lets everybody.
func needDeviceForAll(t *testing.T) {
	t.Helper()
	needRoot(t)
	device, err := os.Stat(fuseDevice)
	must(t, err)
	if device.Mode().Perm()&0o006 != 0o006 {
		need(t, "this test needs `chmod 666 "+fuseDevice+"`")
	}
}

func TestOrdinaryUsersMountThroughFusermount(t *testing.T) {
	needDeviceForAll(t)
	dir := filepath.Join(openTempDir(t), "mnt")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Chown(dir, nobody, nobody))
	command := helper(t, nobody, "mount", dir, "allow-other")
	stdin, err := command.StdinPipe()
	must(t, err)
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	line := make([]byte, 4096)
	n, err := stdout.Read(line)
	must(t, err)
	said := string(line[:n])

	allowed := userAllowOther(fuseConf) == nil
	if !strings.HasPrefix(said, "mounted") || strings.Contains(said, "user_allow_other") == allowed {
		t.Errorf("it says %q; /etc/fuse.conf has user_allow_other: %v", said, allowed)
	}
	if said, err := shellAs(nobody, "/", "cd "+dir+" && echo hello > file && cat file && stat -c %u file"); said != "hello\n65534" {
		t.Errorf("its user works in it: got %q, %v, want the file, owned by the user", said, err)
	}
	_, err = os.Stat(filepath.Join(dir, "file"))
	if !allowed {
		wantErr(t, "root looks into it", err, unix.EACCES)
	}
	must(t, stdin.Close())
	must(t, command.Wait())
	wantErr(t, "after unmounting", checkMountpoint(dir), nil)
}

func TestUsersWithoutRightsOnTheFolderCannotMount(t *testing.T) {
	needDeviceForAll(t)
	dir := filepath.Join(openTempDir(t), "mnt")
	must(t, os.Mkdir(dir, 0o755))
	command := helper(t, nobody, "mount", dir)
	var said strings.Builder
	command.Stderr = &said
	if err := command.Run(); err == nil || !strings.Contains(said.String(), ErrNotMounter.Error()) {
		t.Errorf("got %v and %q, want it to say %q", err, said.String(), ErrNotMounter)
	}
}

func TestAllowOtherIsReadFromTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		what, conf string
		allowed    bool
	}{
		{"the line", "mount_max = 10\nuser_allow_other\n", true},
		{"the line with spaces", "  user_allow_other # yes\n", true},
		{"a comment", "#user_allow_other\n", false},
		{"another word", "user_allow_others\n", false},
		{"nothing", "", false},
	} {
		path := filepath.Join(dir, "fuse.conf")
		must(t, os.WriteFile(path, []byte(c.conf), 0o644))
		if err := userAllowOther(path); (err == nil) != c.allowed {
			t.Errorf("%s: got %v, want allowed %v", c.what, err, c.allowed)
		}
	}
	if err := userAllowOther(filepath.Join(dir, "missing")); err == nil {
		t.Error("without a configuration, other users are allowed")
	}
}

func TestReadOnlyMountRefusesChanges(t *testing.T) {
	drive := newDrive(t)
	_, dir := mount(t, drive, Options{})
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("kept"), 0o644))
	_, dir = mount(t, drive, Options{ReadOnly: true})
	file := filepath.Join(dir, "file")
	got, err := os.ReadFile(file)
	must(t, err)
	if string(got) != "kept" {
		t.Errorf("got %q, want %q", got, "kept")
	}
	wantErr(t, "writing", os.WriteFile(file, nil, 0o644), unix.EROFS)
	wantErr(t, "making a file", os.WriteFile(file+"2", nil, 0o644), unix.EROFS)
	wantErr(t, "removing", os.Remove(file), unix.EROFS)
	wantErr(t, "chmod", os.Chmod(file, 0), unix.EROFS)
	wantErr(t, "mkdir", os.Mkdir(file+"3", 0o755), unix.EROFS)
}

func TestUnmountLeavesNothing(t *testing.T) {
	needFuse(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := descriptors(t)
	m, dir := mount(t, newDrive(t), Options{})
	must(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 3<<20), 0o644))
	if _, err := os.ReadFile(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
	unmount(t, m)
	select {
	case <-m.Done():
	default:
		t.Error("Done is open after Unmount")
	}
	unmount(t, m) // a second time does nothing
	if after := descriptors(t); after != before {
		t.Errorf("%d open descriptors after unmounting, %d before", after, before)
	}
	wantErr(t, "the folder", checkMountpoint(dir), nil)
}

// descriptors counts what this process has open, other than the pipes that go-fuse keeps for splicing.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	n := 0
	for _, fd := range open {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

func TestMountEndsWhenSomebodyElseUnmountsIt(t *testing.T) {
	needRoot(t)
	m, dir := mount(t, newDrive(t), Options{})
	must(t, unix.Unmount(dir, 0))
	soon(t, "the end of the mount", m.Done())
	wantErr(t, "Unmount afterwards", m.Unmount(t.Context()), nil)
}

func TestUnmountLeavesAnotherMountAlone(t *testing.T) {
	needRoot(t)
	m, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "keeps it up"))
	must(t, err)
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	other, err := New(newDrive(t), Options{Mountpoint: dir})
	must(t, err)
	defer unmount(t, other)

	unmounted := make(chan error, 1)
	go func() { unmounted <- m.Unmount(t.Context()) }()
	must(t, f.Close())
	wantErr(t, "Unmount of the first", soon(t, "the end of the first", unmounted), nil)
	wantErr(t, "the second", checkMountpoint(dir), ErrMounted)
}

func TestUnmountWhileInUse(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "open"))
	must(t, err)
	_, err = f.WriteString("hello")
	must(t, err)

	unmounted := make(chan error, 1)
	go func() { unmounted <- m.Unmount(context.Background()) }()
	for err = nil; err == nil; {
		_, err = f.WriteAt([]byte("h"), 0)
	}
	wantErr(t, "a write while unmounting", err, unix.EROFS)
	got := make([]byte, 5)
	_, err = f.ReadAt(got, 0)
	must(t, err)
	if string(got) != "hello" {
		t.Errorf("read while unmounting: got %q, want %q", got, "hello")
	}
	wantErr(t, "truncating while unmounting", f.Truncate(0), unix.EROFS)
	select {
	case err := <-unmounted:
		t.Errorf("Unmount returned %v with a file open", err)
	default:
	}
	must(t, f.Close())
	wantErr(t, "Unmount", soon(t, "the end of Unmount", unmounted), nil)
	soon(t, "the end of the mount", m.Done())
}

func TestUnmountWhileInUseEndsWithItsContext(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "open"))
	must(t, err)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	unmounted := make(chan error, 1)
	go func() { unmounted <- m.Unmount(ctx) }()
	for err = nil; err == nil; {
		_, err = f.WriteAt([]byte("h"), 0)
	}
	cancel(why)
	wantErr(t, "Unmount", soon(t, "the end of Unmount", unmounted), why)
	must(t, f.Close())
	soon(t, "the end of the mount", m.Done())
}

func TestStatsCount(t *testing.T) {
	m, dir := mount(t, newDrive(t), Options{})
	f, err := os.Create(filepath.Join(dir, "file"))
	must(t, err)
	defer f.Close()
	_, err = f.Write(make([]byte, 5000))
	must(t, err)
	_, err = os.ReadFile(f.Name())
	must(t, err)
	_, err = os.Stat(filepath.Join(dir, "missing"))
	wantErr(t, "stat", err, unix.ENOENT)
	s := m.Stats()
	if s.BytesWritten != 5000 || s.BytesRead != 5000 || s.Errors != 0 || s.Requests == 0 || s.OpenHandles == 0 || s.Passthrough {
		t.Errorf("got %+v, want 5000 bytes each way, no errors, something open, nothing passed through", s)
	}
}
