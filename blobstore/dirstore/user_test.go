package dirstore_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// ordinary is set in the environment of the tests that run as an ordinary user.
const ordinary = "DIRSTORE_TEST_ORDINARY"

// elsewhere are the long tests that privileges make no difference to.
const elsewhere = "^(TestStoreThatFindsEveryNodeByName|TestDescriptorsAndMemoryDoNotGrowWithTheNodesKnown)$"

// TestAllAsAnOrdinaryUser runs the tests of this package once more without root's privileges.
func TestAllAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the others do")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "dirstore") // t.TempDir is in a folder that only root may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tmp, program := filepath.Join(dir, "tmp"), filepath.Join(dir, "program")
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o700), os.Chown(tmp, nobody, nobody), copyProgram(program),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.failfast", "-test.skip="+elsewhere)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, ordinary+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func copyProgram(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, from); err != nil {
		return err
	}
	return out.Close()
}

func TestAnOrdinaryUserMayDoWhatTheKernelLetsThem(t *testing.T) {
	if os.Geteuid() == 0 {
		if os.Getenv(ordinary) != "" {
			t.Fatal("these tests should run as an ordinary user")
		}
		t.Skip("runs as an ordinary user")
	}
	b := newBench(t)
	uid, gid := b.drive.Owner()
	if int(uid) != os.Geteuid() || int(gid) != os.Getegid() {
		b.Errorf("got owner %d:%d, want %d:%d", uid, gid, os.Geteuid(), os.Getegid())
	}

	// What can't be given away is not made, in any form.
	for name, mode := range map[string]uint32{
		"file": unix.S_IFREG | 0o644, "folder": unix.S_IFDIR | 0o755, "pipe": unix.S_IFIFO | 0o600, "link": unix.S_IFLNK | 0o777,
	} {
		node := b.newNode(mode)
		node.UID, node.Target = 0, "target"
		_, err := b.drive.Make(b.ctx, root, name, node)
		b.gives(err, blobstore.ErrPermission, "make "+name+" for root")
		_, err = b.drive.Lookup(b.ctx, root, name)
		b.gives(err, blobstore.ErrNotExist, "look up "+name)
	}
	node := b.newNode(unix.S_IFREG | 0o644)
	node.UID = 0
	_, _, _, err := b.drive.Create(b.ctx, root, "file", node, readWrite)
	b.gives(err, blobstore.ErrPermission, "create for root")
	_, err = b.drive.Lookup(b.ctx, root, "file")
	b.gives(err, blobstore.ErrNotExist, "look up what was created for root")
	node = b.newNode(unix.S_IFCHR | 0o600)
	node.Rdev = 1<<8 | 3
	_, err = b.drive.Make(b.ctx, root, "null", node)
	b.gives(err, blobstore.ErrPermission, "make a device")

	// A file is open although its mode denies its owner by now.
	f, ino := b.create(root, "locked", "0123456789")
	_, err = b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{Set: blobstore.SetMode})
	b.ok(err)
	_, err = b.drive.Open(b.ctx, ino, blobstore.OpenRead)
	b.gives(err, blobstore.ErrAccess, "open a file of mode 0")
	_, err = b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 4})
	b.ok(err)
	b.want(b.read(f), "0123")
	b.ok(f.Close())
	_, err = b.drive.SetAttr(b.ctx, ino, blobstore.AttrChange{Set: blobstore.SetSize})
	b.gives(err, blobstore.ErrAccess, "truncate a file of mode 0 that is not open")

	// A folder without permissions can't be looked into, and can be opened up again.
	folder := b.mkdir(root, "closed")
	b.mkfile(folder, "inside", "")
	_, err = b.drive.SetAttr(b.ctx, folder, blobstore.AttrChange{Set: blobstore.SetMode})
	b.ok(err)
	_, err = b.drive.Lookup(b.ctx, folder, "inside")
	b.gives(err, blobstore.ErrAccess, "look up in a folder of mode 0")
	_, err = b.drive.OpenDir(b.ctx, folder)
	b.gives(err, blobstore.ErrAccess, "open a folder of mode 0")
	_, err = b.drive.SetAttr(b.ctx, folder, blobstore.AttrChange{Set: blobstore.SetMode, Mode: 0o700})
	b.ok(err)
	b.lookup(folder, "inside")
}
