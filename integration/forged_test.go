package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A handle of name_to_handle_at(2) on a drive is a node's number and its generation (fs/fuse/inode.c), so root can make them up.
// Whatever is made up leads to nodes of that drive, or nowhere.
func TestHandlesMadeUpByRootOpenNothingOfAnothers(t *testing.T) {
	requireRoot(t)
	onEachRaid(t, func(t *testing.T, r *raid) {
		bob := folderAt(t, r.bob.point)
		secret := r.alice.path("secret-" + marker)
		forged := 0
		try := func(what string, handle unix.FileHandle) {
			t.Helper()
			fd, err := unix.OpenByHandleAt(bob, handle, unix.O_RDONLY|unix.O_CLOEXEC)
			forged++
			if err != nil {
				if !errors.Is(err, unix.ESTALE) {
					t.Errorf("%s: got %v, want ESTALE", what, err)
				}
				return
			}
			defer unix.Close(fd)
			var at, root unix.Stat_t
			check(t, errors.Join(unix.Fstat(fd, &at), unix.Fstat(bob, &root)))
			content := make([]byte, 4096)
			n, _ := unix.Read(fd, content)
			if at.Dev != root.Dev || strings.Contains(string(content[:max(n, 0)]), marker) {
				t.Errorf("%s: opened node %d of device %d: %q", what, at.Ino, at.Dev, content[:max(n, 0)])
			}
		}
		own, _, err := unix.NameToHandleAt(bob, "f", 0)
		check(t, err)
		if fd, err := unix.OpenByHandleAt(bob, own, unix.O_RDONLY|unix.O_CLOEXEC); err != nil {
			t.Errorf("bob's own handle: %v", err)
		} else {
			check(t, unix.Close(fd))
		}
		hers, _, err := unix.NameToHandleAt(unix.AT_FDCWD, secret, 0)
		check(t, err)
		r.untouched(t, func() {
			try("alice's handle", hers)
			bytes := own.Bytes()
			if len(bytes) < 12 {
				t.Fatalf("a handle of %d bytes", len(bytes))
			}
			numbers := []uint64{0, math.MaxInt32, 1 << 44, 1<<44 + 1, math.MaxInt64, 1 << 63, math.MaxUint64}
			for n := range uint64(300) {
				numbers = append(numbers, n)
			}
			for _, number := range numbers {
				for _, generation := range []uint32{0, 1, math.MaxUint32} {
					// The upper half of the number, the lower, and the generation, each in the machine's order.
					forgery := slices.Clone(bytes)
					binary.NativeEndian.PutUint32(forgery[0:], uint32(number>>32))
					binary.NativeEndian.PutUint32(forgery[4:], uint32(number))
					binary.NativeEndian.PutUint32(forgery[8:], generation)
					try(fmt.Sprintf("node %d of generation %d", number, generation), unix.NewFileHandle(own.Type(), forgery))
				}
			}
		})
		if forged < 900 {
			t.Errorf("only %d handles were tried", forged)
		}
	})
}

// What a program has open stays what it is when it is opened again through /proc.
func TestReopeningThroughProcGivesNoMoreRights(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		r := newRaid(t, s, "--allow-other")
		check(t, os.Chmod(r.bob.point, 0o755))
		writeFile(t, r.bob.path("shown"), "to read alone\n")
		writeFile(t, r.bob.path("hidden"), "not to be read\n")
		check(t, os.Chmod(r.bob.path("hidden"), 0o600))
		bob := folderAt(t, r.bob.point)
		self := func(fd int, more string) string { return fmt.Sprintf("/proc/thread-self/fd/%d%s", fd, more) }
		open := func(path string, flags int) func() error {
			return opening(unix.AT_FDCWD, path, unix.OpenHow{Flags: uint64(flags)})
		}
		r.untouched(t, func() {
			nobody(t).on(t, func() {
				path, err := unix.Openat(bob, "hidden", unix.O_PATH|unix.O_CLOEXEC, 0)
				read, errRead := unix.Openat(bob, "shown", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil || errRead != nil {
					t.Errorf("open: %v, %v", err, errRead)
					return
				}
				defer unix.Close(path)
				defer unix.Close(read)
				attempts(t, []attempt{
					{"read what is open by path alone", open(self(path, ""), unix.O_RDONLY), unix.EACCES},
					{"write what is open for reading", open(self(read, ""), unix.O_WRONLY), unix.EACCES},
					{"cut it", func() error { return unix.Ftruncate(read, 0) }, unix.EINVAL},
					{"a path through a file", open(self(read, "/../hidden"), unix.O_RDONLY), unix.ENOTDIR},
					{"change its mode", func() error { return unix.Chmod(self(read, ""), 0o666) }, unix.EPERM},
				})
			})
		})
	})
}

// Programs on a drive get no rights, and devices are none.
func TestADriveGivesNoRights(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		r := newRaid(t, s, "--allow-other")
		check(t, os.Chmod(r.bob.point, 0o755))
		r.person.shell(t, r.bob.point, "cp /usr/bin/id id; chmod 6755 id; mknod zero c 1 5; mknod disk b 7 0; chmod 666 zero disk").ok(t)
		if stat := r.person.run(t, r.bob.point, "stat", "-c", "%a %u", "id").ok(t); stat != "6755 0\n" {
			t.Errorf("the program is of %q, want it to be set-user-ID and root's", stat)
		}
		visitor := nobody(t)
		r.untouched(t, func() {
			got := visitor.run(t, r.bob.point, "./id").ok(t)
			if !strings.HasPrefix(got, "uid=65534") || strings.Contains(got, "euid=0") || strings.Contains(got, "egid=0") {
				t.Errorf("the program runs as %q", got)
			}
			r.person.run(t, r.bob.point, "cp", "/bin/cat", "cat").ok(t)
			check(t, unix.Setxattr(r.bob.path("cat"), "security.capability", dacOverride(), 0))
			writeFile(t, r.bob.path("closed"), "closed")
			check(t, os.Chmod(r.bob.path("closed"), 0o600))
			if got := visitor.run(t, r.bob.point, "./cat", "closed"); got.code == 0 || !strings.Contains(got.stderr, "Permission denied") {
				t.Errorf("a program with capabilities: %v", got)
			}
			for _, device := range []string{"zero", "disk"} {
				attempts(t, []attempt{{"open the device " + device, opening(unix.AT_FDCWD, r.bob.path(device), unix.OpenHow{Flags: unix.O_RDONLY}), unix.EACCES}})
			}
		})
	})
}

// dacOverride is the attribute security.capability with cap_dac_override+ep: struct vfs_cap_data of linux/capability.h, version 2.
func dacOverride() []byte {
	value := make([]byte, 20)
	binary.LittleEndian.PutUint32(value[0:], 0x02000001)
	binary.LittleEndian.PutUint32(value[4:], 1<<unix.CAP_DAC_OVERRIDE)
	return value
}

// What is rarely asked for is refused with the errno of the manual pages, and changes nothing.
func TestRareRequestsAreRefused(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		r := newRaid(t, s, "--allow-other")
		check(t, os.Chmod(r.bob.point, 0o777))
		check(t, os.Chmod(r.bob.path("f"), 0o666))
		bob, f := folderAt(t, r.bob.point), r.bob.path("f")
		open, err := unix.Open(f, unix.O_RDWR|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(open)
		rename := func(flags uint) func() error {
			return func() error { return unix.Renameat2(bob, "f", bob, "new", flags) }
		}
		// What the kernel itself looks at is well-formed: struct posix_acl_xattr_header and three entries, and vfs_cap_data.
		acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x04\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x06\x00\xff\xff\xff\xff")
		set := func(name string, value []byte) func() error {
			return func() error { return unix.Setxattr(f, name, value, 0) }
		}
		get := func(name string) func() error {
			return func() error { _, err := unix.Getxattr(f, name, make([]byte, 64)); return err }
		}
		ioctl := func(request uintptr) func() error {
			return func() error {
				var buffer [4096]byte
				if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(open), request, uintptr(unsafe.Pointer(&buffer))); errno != 0 {
					return errno
				}
				return nil
			}
		}
		before := r.listingOf(t, r.bob.point)
		r.untouched(t, func() {
			attempts(t, []attempt{
				{"rename with a whiteout", rename(unix.RENAME_WHITEOUT), unix.EINVAL},
				{"rename with an exchange and no replacing", rename(unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE), unix.EINVAL},
				{"rename with unknown flags", rename(1 << 20), unix.EINVAL},
				{"a nameless file", opening(bob, ".", unix.OpenHow{Flags: unix.O_TMPFILE | unix.O_RDWR, Mode: 0o600}), unix.EOPNOTSUPP},
				{"an access list", set("system.posix_acl_access", acl), unix.EOPNOTSUPP},
				{"a default access list", func() error { return unix.Setxattr(r.bob.path("d"), "system.posix_acl_default", acl, 0) }, unix.EOPNOTSUPP},
				{"read an access list", get("system.posix_acl_access"), unix.EOPNOTSUPP},
				{"an attribute of no namespace", set("alice", []byte("x")), unix.EOPNOTSUPP},
				{"an attribute of an unknown namespace", set("mediafs.drive", []byte("x")), unix.EOPNOTSUPP},
				{"an attribute without a name", set("user.", []byte("x")), unix.EOPNOTSUPP},
				{"FS_IOC_GETFLAGS", ioctl(unix.FS_IOC_GETFLAGS), unix.ENOTTY},
				{"FS_IOC_SETFLAGS", ioctl(unix.FS_IOC_SETFLAGS), unix.ENOTTY},
				{"FS_IOC_ENABLE_VERITY", ioctl(unix.FS_IOC_ENABLE_VERITY), unix.ENOTTY},
				{"an unknown ioctl", ioctl(0xdead), unix.ENOTTY},
			})
			nobody(t).on(t, func() {
				attempts(t, []attempt{
					{"another's trusted attribute", set("trusted.x", []byte("x")), unix.EPERM},
					{"another's security attribute", set("security.x", []byte("x")), unix.EPERM},
					{"another's capabilities", set("security.capability", dacOverride()), unix.EPERM},
					{"read a trusted attribute", get("trusted.x"), unix.ENODATA},
					{"give a file away", func() error { return unix.Chown(f, 65534, 65534) }, unix.EPERM},
					{"a device", func() error { return unix.Mknodat(bob, "dev", unix.S_IFCHR|0o666, 1<<8|5) }, unix.EPERM},
					{"open by a handle", func() error {
						handle, _, err := unix.NameToHandleAt(bob, "f", 0)
						if err == nil {
							_, err = unix.OpenByHandleAt(bob, handle, unix.O_RDONLY|unix.O_CLOEXEC)
						}
						return err
					}, unix.EPERM},
				})
			})
		})
		diffLines(t, "bob's drive", before, r.listingOf(t, r.bob.point))
	})
}

// A drive is the folder that was there when it was mounted. What takes its place is another, and none of bob's.
func TestAFolderThatIsReplacedUnderAMountIsNotFollowed(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	for what, replace := range map[string]func(alice, bob string) error{
		"by a link to alice's": func(alice, bob string) error {
			return errors.Join(os.Rename(bob, bob+".away"), os.Symlink("alice", bob))
		},
		"by an absolute link": func(alice, bob string) error {
			return errors.Join(os.Rename(bob, bob+".away"), os.Symlink(alice, bob))
		},
		"by nothing": func(_, bob string) error { return os.Rename(bob, bob+".away") },
		"by alice's own, which takes its name": func(alice, bob string) error {
			return unix.Renameat2(unix.AT_FDCWD, alice, unix.AT_FDCWD, bob, unix.RENAME_EXCHANGE)
		},
		"by an empty one": func(_, bob string) error { return errors.Join(os.Rename(bob, bob+".away"), os.Mkdir(bob, 0o700)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRaid(t, newStore(t, folder, person{}))
			r.alice.unmount(t)
			aliceDir, bobDir := filepath.Join(r.root, "alice"), filepath.Join(r.root, "bob")
			// Renaming her folder, which is part of the attack, changes its own ctime.
			hers := func(dir string) []string {
				return slices.DeleteFunc(r.listingOf(t, dir), func(line string) bool { return strings.HasPrefix(line, ". d ") })
			}
			before := hers(aliceDir)
			check(t, replace(aliceDir, bobDir))
			// Whatever bob does now is done to the folder that was his, or refused. He sees nothing of hers, and hers stays.
			script := `find . ; cat ./* same-number secret-* 2>&1; echo new >same-number; mkdir x; rm -rf ./*; true`
			if got := r.person.run(t, "/", "bash", "-c", "cd "+r.bob.point+" && "+script); strings.Contains(got.stdout+got.stderr, marker) {
				t.Errorf("bob finds alice's: %v", got)
			}
			// Nor is a link mounted as his drive.
			if info, err := os.Lstat(bobDir); err == nil && info.Mode()&os.ModeSymlink != 0 {
				point := r.mountpoint(t)
				got := r.mediafs(t, "mount", "--store", r.address, "--token-file", filepath.Join(r.dir, "bob.token"), point)
				complains(t, got, codeAway, "bob")
				if isMounted(t, point) {
					t.Errorf("%s is mounted", point)
				}
			}
			// What is closed later is the drive that was.
			if strings.Contains(what, "takes its name") {
				check(t, replace(aliceDir, bobDir))
			} else {
				check(t, errors.Join(os.RemoveAll(bobDir), os.Rename(bobDir+".away", bobDir)))
			}
			diffLines(t, "alice's folder", before, hers(aliceDir))
			r.bob.unmount(t)
		})
	}
}

// A mountpoint on a drive holds what is below it, and what is mounted in the folder of a drive is no part of it.
func TestWhatIsMountedOnOrBelowADriveStaysApart(t *testing.T) {
	requireRoot(t)
	onEachRaid(t, func(t *testing.T, r *raid) {
		bob := folderAt(t, r.bob.point)
		r.person.run(t, "/", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", r.bob.path("d")).ok(t)
		r.untouched(t, func() {
			attempts(t, []attempt{
				{"rename a mountpoint", func() error { return unix.Renameat(bob, "d", bob, "e") }, unix.EBUSY},
				{"remove a mountpoint", func() error { return unix.Unlinkat(bob, "d", unix.AT_REMOVEDIR) }, unix.EBUSY},
				{"move a file into it", func() error { return unix.Renameat(bob, "f", bob, "d/f") }, unix.EXDEV},
				{"link a file into it", func() error { return unix.Linkat(bob, "f", bob, "d/f", 0) }, unix.EXDEV},
			})
		})
		r.person.run(t, "/", "umount", r.bob.path("d")).ok(t)
		if r.kind != folder {
			return
		}
		inside := filepath.Join(r.root, "bob", "d")
		r.person.run(t, "/", "mount", "--bind", filepath.Join(r.root, "alice"), inside).ok(t)
		defer func() { r.person.run(t, "/", "umount", inside).ok(t) }()
		r.untouched(t, func() {
			attempts(t, []attempt{
				{"list what is mounted in the folder", opening(bob, "d", unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY}), unix.EXDEV},
				{"open a file in it", opening(bob, "d/same-number", unix.OpenHow{Flags: unix.O_RDWR}), unix.EXDEV},
				{"create a file in it", opening(bob, "d/new", unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o600}), unix.EXDEV},
			})
		})
	})
}
