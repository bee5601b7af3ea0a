package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// What can't be done gives the errno that the manual pages give.
func TestImpossibleOperationsGiveTheirErrno(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"))
		s.person.shell(t, m.point, "mkdir -p d/sub; echo x >f; ln -s loop2 loop1; ln -s loop1 loop2; ln -s f link; mkfifo p").ok(t)
		dir, err := unix.Open(m.point, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(dir)
		file, err := unix.Openat(dir, "f", unix.O_RDWR|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(file)
		tooLong := strings.Repeat("n", blobstore.MaxNameLen+1)
		open := func(name string, flags int) error {
			fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0o644)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}
		rename := func(from, to string, flags uint) error { return unix.Renameat2(dir, from, dir, to, flags) }
		write := func(off int64) error {
			_, err := unix.Pwrite(file, []byte("x"), off)
			return err
		}
		seek := func(off int64, whence int) error {
			_, err := unix.Seek(file, off, whence)
			return err
		}
		xattr := func(name string, size, flags int) error {
			return unix.Setxattr(m.path("f"), name, make([]byte, size), flags)
		}
		get := func(name string, size int) error {
			_, err := unix.Getxattr(m.path("f"), name, make([]byte, size))
			return err
		}
		check(t, xattr("user.ten", 10, 0))
		for _, test := range []struct {
			what string
			got  error
			want error
		}{
			{"a name of 255 bytes", open(tooLong[1:], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), nil},
			{"open a name over 255 bytes", open(tooLong, unix.O_RDONLY), unix.ENAMETOOLONG},
			{"create one", open(tooLong, unix.O_CREAT|unix.O_WRONLY), unix.ENAMETOOLONG},
			{"mkdir one", unix.Mkdirat(dir, tooLong, 0o755), unix.ENAMETOOLONG},
			{"symlink one", unix.Symlinkat("f", dir, tooLong), unix.ENAMETOOLONG},
			{"link one", unix.Linkat(dir, "f", dir, tooLong, 0), unix.ENAMETOOLONG},
			{"mknod one", unix.Mknodat(dir, tooLong, unix.S_IFIFO, 0), unix.ENAMETOOLONG},
			{"rename to one", rename("f", tooLong, 0), unix.ENAMETOOLONG},
			{"unlink one", unix.Unlinkat(dir, tooLong, 0), unix.ENAMETOOLONG},
			{"a path over 4096 bytes", open(strings.Repeat("d/../", 1000)+"f", unix.O_RDONLY), unix.ENAMETOOLONG},
			{"a target over 4095 bytes", unix.Symlinkat(strings.Repeat("t", 4096), dir, "new"), unix.ENAMETOOLONG},
			{"an empty target", unix.Symlinkat("", dir, "new"), unix.ENOENT},

			{"open a loop of links", open("loop1", unix.O_RDONLY), unix.ELOOP},
			{"a path through one", open("loop1/f", unix.O_RDONLY), unix.ELOOP},
			{"open a link itself", open("link", unix.O_RDONLY|unix.O_NOFOLLOW), unix.ELOOP},

			{"write in the middle of the largest file", write(blobstore.MaxFileSize / 2), nil},
			{"write past the largest file", write(blobstore.MaxFileSize + 1), unix.EFBIG},
			{"write far past it", write(1 << 62), unix.EFBIG},
			{"write at a negative offset", write(-1), unix.EINVAL},
			{"grow past the largest file", unix.Ftruncate(file, blobstore.MaxFileSize+2), unix.EFBIG},
			{"cut to a negative size", unix.Ftruncate(file, -1), unix.EINVAL},
			{"reserve past the largest file", unix.Fallocate(file, 0, blobstore.MaxFileSize, 4096), unix.EFBIG},
			{"reserve nothing", unix.Fallocate(file, 0, 0, 0), unix.EINVAL},
			{"punch a hole and grow", unix.Fallocate(file, unix.FALLOC_FL_PUNCH_HOLE, 0, 4096), unix.EOPNOTSUPP},
			{"cut it short again", unix.Ftruncate(file, 2), nil},
			{"seek to data past the end", seek(10, unix.SEEK_DATA), unix.ENXIO},
			{"seek to a hole past the end", seek(10, unix.SEEK_HOLE), unix.ENXIO},
			{"seek before the start", seek(-1, unix.SEEK_SET), unix.EINVAL},

			{"open what is not there", open("none", unix.O_RDONLY), unix.ENOENT},
			{"create what is there", open("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST},
			{"create over a dangling link", open("loop1", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST},
			{"write to a folder", open("d", unix.O_WRONLY), unix.EISDIR},
			{"list a file", open("f", unix.O_RDONLY|unix.O_DIRECTORY), unix.ENOTDIR},
			{"a path through a file", open("f/x", unix.O_RDONLY), unix.ENOTDIR},
			{"mkdir what is there", unix.Mkdirat(dir, "f", 0o755), unix.EEXIST},
			{"rmdir a file", unix.Unlinkat(dir, "f", unix.AT_REMOVEDIR), unix.ENOTDIR},
			{"rmdir a full folder", unix.Unlinkat(dir, "d", unix.AT_REMOVEDIR), unix.ENOTEMPTY},
			{"unlink a folder", unix.Unlinkat(dir, "d", 0), unix.EISDIR},
			{"link a folder", unix.Linkat(dir, "d", dir, "new", 0), unix.EPERM},
			{"link across drives", unix.Linkat(unix.AT_FDCWD, "/proc/self/status", dir, "new", 0), unix.EXDEV},
			{"rename a folder into itself", rename("d", "d/sub/d", 0), unix.EINVAL},
			{"rename a folder over a full one", rename("d/sub", "d", 0), unix.ENOTEMPTY},
			{"rename a file over a folder", rename("f", "d", 0), unix.EISDIR},
			{"rename a folder over a file", rename("d", "f", 0), unix.ENOTDIR},
			{"rename without replacing", rename("f", "p", unix.RENAME_NOREPLACE), unix.EEXIST},
			{"exchange with nothing", rename("f", "none", unix.RENAME_EXCHANGE), unix.ENOENT},
			{"write to a pipe that nobody reads", open("p", unix.O_WRONLY|unix.O_NONBLOCK), unix.ENXIO},

			{"get an attribute that is not there", get("user.none", 10), unix.ENODATA},
			{"get one into too little room", get("user.ten", 5), unix.ERANGE},
			{"create one that is there", xattr("user.ten", 1, unix.XATTR_CREATE), unix.EEXIST},
			{"replace one that is not", xattr("user.none", 1, unix.XATTR_REPLACE), unix.ENODATA},
			{"one over 64 KiB", xattr("user.big", 64<<10+1, 0), unix.E2BIG},
			{"one with a name over 255 bytes", xattr("user."+tooLong, 1, 0), unix.ERANGE},
			{"one of no kind", xattr("nonsense", 1, 0), unix.EOPNOTSUPP},
		} {
			if !errors.Is(test.got, test.want) {
				t.Errorf("%s: %v, want %v", test.what, test.got, test.want)
			}
		}
		if got := readFile(t, m.path("f")); got != "x\n" {
			t.Errorf("after all that the file holds %q", got)
		}
	})
}

// A read-only mount gives EROFS for whatever would change something, and changes nothing.
func TestAReadOnlyMountChangesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		s.person.shell(t, m.point, "mkdir d; echo kept >f").ok(t)
		before := listing(t, s.person, m.point)
		m.unmount(t)
		m = s.mountAt(t, alice, m.point, "--read-only")
		for _, attempt := range []string{"echo x >f", "echo x >>f", "touch new", "mkdir new", "rm f", "mv f g", "ln f g", "ln -s f g",
			"chmod 600 f", "touch -d @1 f", "setfattr -n user.x -v y f", "truncate -s 1 f", "rmdir d", "mkfifo p"} {
			r := s.person.shell(t, m.point, attempt)
			if r.code == 0 || !strings.Contains(r.stderr, "Read-only file system") {
				t.Errorf("%s: want EROFS: %v", attempt, r)
			}
		}
		if got := readFile(t, m.path("f")); got != "kept\n" {
			t.Errorf("read %q", got)
		}
		diffLines(t, "find", before, listing(t, s.person, m.point))
	})
}

// fill writes until it fails, and returns the error and how much was written before.
func fill(t *testing.T, path string) (int64, error) {
	t.Helper()
	const enough = 256 << 20
	file, err := os.Create(path)
	check(t, err)
	n, err := io.CopyBuffer(file, io.LimitReader(struct{ io.Reader }{zeros{}}, enough), make([]byte, 128<<10))
	if err == nil {
		err = file.Sync()
	}
	if errClose := file.Close(); err == nil {
		err = errClose
	}
	return n, err
}

// zeros is an endless source of bytes. They are not zero, which might cost no room.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'z'
	}
	return len(p), nil
}

// A full disk gives ENOSPC at the write, the fsync or the close; what was there before stays, and room that comes free is used.
func TestAFullDiskIsTold(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		s := bareStore(t, folder, person{})
		check(t, os.Mkdir(s.root, 0o755))
		smallDisk(t, s.root, "size=16M")
		s.mediafs(t, "init", "--store", s.address).ok(t)
		m := s.mount(t, s.addUser(t, "alice"))
		writeFile(t, m.path("before"), "still here")
		for range 2 {
			if n, err := fill(t, m.path("large")); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("after %d bytes: %v, want ENOSPC", n, err)
			}
			if got := readFile(t, m.path("before")); got != "still here" {
				t.Errorf("read %q", got)
			}
			check(t, os.Remove(m.path("large")))
		}
		writeFile(t, m.path("after"), "room again")
		m.unmount(t)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		disk := filepath.Join(tempDir(t), "disk")
		check(t, os.Mkdir(disk, 0o755))
		smallDisk(t, disk, "size=40M")
		check(t, os.Chmod(disk, 0o777))
		s := bareStore(t, postgres, person{})
		_, s.database = databaseOnDisk(t, disk)
		s.address = s.database
		s.mediafs(t, "init", "--store", s.address).ok(t)
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		content := bytes.Repeat([]byte("still here"), 100_000)
		check(t, os.WriteFile(m.path("before"), content, 0o644))
		if n, err := fill(t, m.path("large")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("after %d bytes: %v, want ENOSPC", n, err)
		}
		if !bytes.Equal([]byte(readFile(t, m.path("before"))), content) {
			t.Error("a file that was closed before has changed")
		}
		// Postgres may lack the room even to note that the file goes. Then what of it is pending can't be stored, and
		// unmounting says so.
		removed := os.Remove(m.path("large"))
		if removed != nil && !errors.Is(removed, unix.ENOSPC) {
			t.Error(removed)
		}
		r := s.mediafs(t, "umount", m.point)
		if r.code != 0 && (r.code != codeNotStored || removed == nil) {
			t.Error(r)
		}
		m.waitForEnd(t)
		m = s.mountAt(t, alice, m.point)
		if !bytes.Equal([]byte(readFile(t, m.path("before"))), content) {
			t.Error("a file that was closed before has changed after mounting again")
		}
	})
}

// databaseOnDisk is a cluster with a database whose tables are on a disk, and the address of that.
func databaseOnDisk(t *testing.T, disk string) (*pgtest.Cluster, string) {
	t.Helper()
	cluster := pgtest.NewCluster(t)
	space := filepath.Join(disk, "space")
	super := connect(t, cluster.URL("postgres"))
	var owner string
	check(t, super.QueryRow(context.Background(), "SHOW data_directory").Scan(&owner))
	info, err := os.Stat(owner)
	check(t, err)
	check(t, os.Mkdir(space, 0o700))
	chownLike(t, space, info)
	for _, statement := range []string{"CREATE TABLESPACE small LOCATION '" + space + "'", "CREATE DATABASE small TABLESPACE small"} {
		_, err := super.Exec(context.Background(), statement)
		check(t, err)
	}
	return cluster, cluster.URL("small")
}

// A full quota gives EDQUOT. Few machines have one to try: strace has the kernel answer the program as if there were.
func TestAFullQuotaIsTold(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		missing(t, err.Error())
	}
	requireRoot(t)
	t.Parallel()
	s := newStore(t, folder, nobody(t)) // without passthrough: all writes are the program's
	path, err := program()
	check(t, err)
	alice := s.addUser(t, "alice")
	wrapper := filepath.Join(s.dir, "with-quota")
	// -D: the program keeps its own process, so that it is told to end like any other. -u: fusermount3 gets its rights only
	// when root is who traces it.
	writeProgram(t, wrapper, "#!/bin/sh\nexec "+strace+" -D -f -u nobody -qq -o /dev/null -e trace=pwrite64,fallocate "+
		"-e inject=pwrite64,fallocate:error=EDQUOT "+path+` "$@"`+"\n")
	traced := *s
	traced.person = person{home: s.person.home}
	m := traced.mountWith(t, wrapper, alice, s.mountpoint(t))
	m.s = s
	for _, command := range []string{"echo x >file", "dd if=/dev/zero of=file bs=1M count=3 conv=fsync", "fallocate -l 1M file"} {
		if r := s.person.shell(t, m.point, command); r.code == 0 || !strings.Contains(r.stderr, "Disk quota exceeded") {
			t.Errorf("want EDQUOT: %v", r)
		}
	}
	s.person.shell(t, m.point, "touch other; ls; rm other").ok(t)
	m.unmount(t)
}
