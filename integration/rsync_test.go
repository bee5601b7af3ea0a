package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rsync takes a tree with everything that a node can be and have onto a drive and back from it, and nothing differs: as rsync sees it,
// which is asked to say what it would still do, and as lstat, reading and listing attributes tell it.
func TestRsyncThereAndBackChangesNothing(t *testing.T) {
	requireRoot(t) // owners, devices, and attributes of root's
	onEachStore(t, func(t *testing.T, s *store) {
		source, back := filepath.Join(s.dir, "source"), filepath.Join(s.dir, "back")
		makeOddTree(t, source)
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		// Times are compared to the nanosecond (--modify-window). The tree has no ACLs, as drives have none. What a drive knows of its files is no part
		// of the tree.
		const options = "-aHAXS --numeric-ids --delete --modify-window=-1 --filter='-x user.mediafs.*'"
		rsync := func(more, from, to string) string {
			t.Helper()
			return s.person.shell(t, s.dir, fmt.Sprintf("rsync %s %s %s/ %s/", options, more, from, to)).ok(t)
		}
		same := func(from, to string) {
			t.Helper()
			if left := rsync("-nic", from, to); left != "" {
				t.Errorf("rsync would still change, from %s to %s:\n%s", from, to, left)
			}
			diffLines(t, from+" and "+to, describe(t, from), describe(t, to))
		}
		tree := m.path("tree")
		rsync("", source, tree)
		same(source, tree)
		m.unmount(t)

		s.mountAt(t, alice, m.point)
		same(source, tree)
		rsync("", tree, back)
		same(source, back)

		// A second time there is nothing to do, and what has changed is brought after.
		if done := rsync("-i", source, tree); done != "" {
			t.Errorf("rsync changed again:\n%s", done)
		}
		check(t, os.WriteFile(filepath.Join(source, "plain"), []byte("changed"), 0o644))
		check(t, os.Remove(filepath.Join(source, "fifo")))
		check(t, os.Rename(filepath.Join(source, "folder"), filepath.Join(source, "moved")))
		rsync("", source, tree)
		same(source, tree)
	})
}

// makeOddTree makes a tree of everything that a node can be and have.
func makeOddTree(t *testing.T, root string) {
	t.Helper()
	path := func(name string) string { return filepath.Join(root, name) }
	check(t, os.MkdirAll(path("folder/deeper/empty"), 0o755))
	names := []string{
		"plain", "with space", "-n", "--delete", "*", "?", "[a-z]", "new\nline", "tab\t", `back\slash`, `quo"te'`, "\x01\x7f", "$(id)", ".hidden", "...",
		"ünïcödé", "u\u0308decomposed", "\u202ereversed", "\xff\xfe not UTF-8", "\xc3\x28", strings.Repeat("n", 255), strings.Repeat("é", 127), "~", "con", "#", ":",
	}
	for i, name := range names {
		check(t, os.WriteFile(path(name), noise(i*i*731), 0o644))
		check(t, os.WriteFile(path(filepath.Join("folder/deeper", name)), []byte(name), 0o600))
	}

	for i, mode := range []uint32{0, 0o400, 0o777, 0o644, 0o4755, 0o2755, 0o1644, 0o6711} {
		name := path(fmt.Sprintf("mode-%o", mode))
		check(t, os.WriteFile(name, []byte{byte(i)}, 0o600))
		check(t, unix.Chown(name, 1000+i*70_000, 0))
		check(t, unix.Chmod(name, mode))
		check(t, unix.Mkdir(name+"-folder", 0o700))
		check(t, unix.Chown(name+"-folder", 65534, 4_000_000_000))
		check(t, unix.Chmod(name+"-folder", mode))
	}

	for i, target := range []string{"plain", "../outside", "/absolute", "nowhere", "link-0", strings.Repeat("l", 4095), "\xff", "new\nline"} {
		link := path(fmt.Sprint("link-", i))
		check(t, os.Symlink(target, link))
		check(t, unix.Lchown(link, i, 100+i))
	}
	check(t, unix.Mkfifo(path("fifo"), 0o640))
	check(t, unix.Mknod(path("socket"), unix.S_IFSOCK|0o755, 0))
	check(t, unix.Mknod(path("characters"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, unix.Mknod(path("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 1_000_000))))
	for i, of := range []string{"plain", "plain", "fifo", "link-1", "characters", "ünïcödé"} {
		check(t, os.Link(path(of), path(fmt.Sprint("folder/hard-", i))))
	}

	sparse, err := os.Create(path("sparse"))
	check(t, err)
	check(t, sparse.Truncate(40<<20))
	_, err = sparse.WriteAt(noise(100_000), 20<<20+12_345)
	check(t, errors.Join(err, sparse.Close()))
	check(t, os.WriteFile(path("big"), noise(9_000_001), 0o644))

	for name, value := range map[string]string{
		"user.empty": "", "user.binary": "\x00\xff\n", "user.große": "x", "user." + strings.Repeat("a", 200): "long", "user.large": strings.Repeat("v", 3000),
		"trusted.of-root": "t", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		check(t, unix.Lsetxattr(path("with space"), name, []byte(value), 0))
		if !strings.HasPrefix(name, "security.") {
			check(t, unix.Lsetxattr(path("folder"), name, []byte(value), 0))
		}
	}
	check(t, unix.Lsetxattr(path("link-1"), "trusted.of-a-link", []byte("l"), 0))

	// Times last, the deepest first: making something changes its folder's.
	var all []string
	check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	}))
	for i, path := range slices.Backward(all) {
		at := unix.NsecToTimespec([]int64{1, 999_999_999, 1_234_567_890_123_456_789, -1, 4_102_444_800_000_000_001}[i%5] + int64(i)*1_000)
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// describe has a line for each node of a tree: all that lstat(2) tells of it but its number and its device, the times of access and
// change, and the room that it takes; its other names; its attributes; and its content.
func describe(t *testing.T, root string) []string {
	t.Helper()
	first := map[uint64]string{}
	var lines []string
	check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		line := fmt.Sprintf("%q mode %o owner %d:%d device %x time %s", name, stat.Mode, stat.Uid, stat.Gid, stat.Rdev,
			time.Unix(stat.Mtim.Unix()).UTC().Format(time.RFC3339Nano))
		kind := stat.Mode & unix.S_IFMT
		if kind != unix.S_IFDIR {
			if first[stat.Ino] == "" {
				first[stat.Ino] = name
			}
			line += fmt.Sprintf(" size %d links %d first %q", stat.Size, stat.Nlink, first[stat.Ino])
		}
		for _, attribute := range attributesOf(t, path) {
			line += " " + attribute
		}
		switch kind {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			check(t, err)
			line += fmt.Sprintf(" -> %q", target)
		case unix.S_IFREG:
			content := sha256.New()
			file, err := os.Open(path)
			check(t, err)
			_, err = io.Copy(content, file)
			check(t, errors.Join(err, file.Close()))
			line += " content " + sum(content)
			if stat.Size == 40<<20 && stat.Blocks*512 > 1<<20 {
				line += fmt.Sprintf(" which takes %d blocks: no holes", stat.Blocks)
			}
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

func noise(n int) []byte {
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // never fails
	return content
}

// attributesOf returns the extended attributes of a node, links not followed.
func attributesOf(t *testing.T, path string) []string {
	t.Helper()
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	check(t, err)
	var attributes []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "user.mediafs.") {
			continue
		}
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, value)
		check(t, err)
		attributes = append(attributes, fmt.Sprintf("%s=%q", name, value[:n]))
	}
	slices.Sort(attributes)
	return attributes
}
