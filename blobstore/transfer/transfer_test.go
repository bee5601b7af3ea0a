package transfer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/memstore"
	"mediafs/blobstore/transfer"
)

// inMemory is a drive that nothing is in.
func inMemory(t *testing.T) blobstore.Drive {
	t.Helper()
	drive, err := memstore.New().Open(t.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	check(t, err)
	return drive
}

// folder is a folder of this machine as a drive.
func folder(t *testing.T, path string) blobstore.Drive {
	t.Helper()
	check(t, os.MkdirAll(path, 0o755))
	drive, err := dirstore.OpenFolder(path)
	check(t, err)
	t.Cleanup(func() { check(t, drive.Close(context.WithoutCancel(t.Context()))) })
	return drive
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An outcome is what came of a run.
type outcome struct {
	transfer.Progress
	problems []string
	err      error
}

// copied copies all of a drive to another.
func copied(t *testing.T, from, to blobstore.Drive, o transfer.Options) *outcome {
	t.Helper()
	result := new(outcome)
	o.UID, o.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	o.Problem = func(p transfer.Problem) { result.problems = append(result.problems, p.Path+": "+p.Why.Error()) }
	result.err = transfer.Run(t.Context(), []transfer.Source{{Drive: from, Ino: blobstore.RootIno}},
		transfer.Target{Drive: to, Folder: blobstore.RootIno, Path: "/", Whole: true}, o, &result.Progress)
	return result
}

// wholly fails the test unless everything was copied.
func (o *outcome) wholly(t *testing.T) *outcome {
	t.Helper()
	if o.err != nil || len(o.problems) > 0 {
		t.Fatalf("got %v, %q", o.err, o.problems)
	}
	return o
}

// tells fails the test unless the problems, in any order, are those that begin with a path and have the error's words.
func (o *outcome) tells(t *testing.T, want map[string]error) {
	t.Helper()
	if o.err != nil {
		t.Error(o.err)
	}
	for path, err := range want {
		if !slices.ContainsFunc(o.problems, func(p string) bool { return strings.HasPrefix(p, path+": ") && strings.Contains(p, err.Error()) }) {
			t.Errorf("got %q, want %s: %v", o.problems, path, err)
		}
	}
	if len(o.problems) != len(want) {
		t.Errorf("got %q, want %d problems", o.problems, len(want))
	}
}

// makeTree makes a tree with some of everything.
func makeTree(t *testing.T, root string, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	for i, dir := range []string{"", "empty", "a", "a/b", "not UTF-8 \xff"} {
		dir = filepath.Join(root, dir)
		check(t, os.MkdirAll(dir, 0o750))
		for f := range 6 {
			content := make([]byte, random.IntN(40_000))
			for j := range content {
				content[j] = byte(random.Uint32())
			}
			if i == 1 {
				break
			}
			name := filepath.Join(dir, fmt.Sprint("file ", f))
			check(t, os.WriteFile(name, content, 0o604))
			check(t, unix.Setxattr(name, "user.number", []byte{byte(f)}, 0))
			switch f {
			case 0:
				check(t, os.Link(name, filepath.Join(root, fmt.Sprint("hard ", i))))
			case 1:
				check(t, os.Truncate(name, 3<<20))
				check(t, unix.Removexattr(name, "user.number"))
			case 2:
				check(t, os.Symlink("../file 1", name+" link"))
				check(t, unix.Mkfifo(name+" fifo", 0o620))
				check(t, os.Chmod(name, 0o2400))
			case 3:
				check(t, os.WriteFile(name, make([]byte, 1<<20), 0o600))
			}
			at := unix.NsecToTimespec(random.Int64N(2e18))
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{at, at}, 0))
		}
	}
}

// describe has a line for each node of a drive but the root.
func describe(t *testing.T, d blobstore.Drive) []string {
	t.Helper()
	ctx := t.Context()
	var lines []string
	first := map[blobstore.Ino]string{}
	var within func(ino blobstore.Ino, path string)
	within = func(ino blobstore.Ino, path string) {
		dir, err := d.OpenDir(ctx, ino)
		check(t, err)
		var names []string
		check(t, dir.Read(ctx, 0, false, func(e *blobstore.Entry) bool {
			if e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
			}
			return true
		}))
		check(t, dir.Close())
		slices.Sort(names)
		for _, name := range names {
			a, err := d.Lookup(ctx, ino, name)
			check(t, err)
			where := path + "/" + name
			line := fmt.Sprintf("%q mode %o time %d", where, a.Mode, a.MtimeNs)
			xattrs, err := d.ListXattr(ctx, a.Ino)
			check(t, err)
			slices.Sort(xattrs)
			for _, name := range xattrs {
				if strings.HasPrefix(name, blobstore.XattrFacts) {
					continue
				}
				value, err := d.GetXattr(ctx, a.Ino, name)
				check(t, err)
				line += fmt.Sprintf(" %s=%q", name, value)
			}
			switch a.Type() {
			case unix.S_IFDIR:
				within(a.Ino, where)
			case unix.S_IFLNK:
				target, err := d.Readlink(ctx, a.Ino)
				check(t, err)
				line += " -> " + target
			case unix.S_IFREG:
				if first[a.Ino] == "" {
					first[a.Ino] = where
				}
				content := make([]byte, a.Size)
				f, err := d.Open(ctx, a.Ino, blobstore.OpenRead)
				check(t, err)
				_, err = f.ReadAt(ctx, content, 0)
				check(t, errors.Join(err, f.Close()))
				line += fmt.Sprintf(" is %q, %d bytes, %x", first[a.Ino], a.Size, sha256.Sum256(content))
				if a.Size == 3<<20 && a.Allocated > 1<<20 {
					line += " without holes"
				}
			}
			lines = append(lines, line)
		}
	}
	within(blobstore.RootIno, "")
	return lines
}

func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("%s: got  %s\nwant %s", what, got[i], want[i])
		}
	}
	if len(want) != len(got) {
		t.Fatalf("%s: got %d nodes, want %d", what, len(got), len(want))
	}
}

func TestATreeIsTheSameThereAndBack(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, filepath.Join(dir, "source"), 1)
	source, memory, back := folder(t, filepath.Join(dir, "source")), inMemory(t), folder(t, filepath.Join(dir, "back"))
	want := describe(t, source)
	copied(t, source, memory, transfer.Options{}).wholly(t)
	same(t, "in memory", want, describe(t, memory))
	copied(t, memory, back, transfer.Options{}).wholly(t)
	same(t, "back", want, describe(t, back))
	if again := copied(t, source, memory, transfer.Options{}).wholly(t); again.Copied.Load() != 0 || again.Present.Load() == 0 {
		t.Errorf("again: %d copied, %d there", again.Copied.Load(), again.Present.Load())
	}
	copied(t, source, inMemory(t), transfer.Options{Move: true}).wholly(t)
	if left := describe(t, source); len(left) > 0 {
		t.Errorf("moved, and still there: %q", left)
	}
}

func TestNothingThatIsThereIsReplaced(t *testing.T) {
	dir := t.TempDir()
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "there")
	source, target := folder(t, here), folder(t, there)
	write := func(path, content string, ns int64) {
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
		at := unix.NsecToTimespec(ns)
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
	}
	for _, name := range []string{"size", "time", "content", "same", "folder/in it", "file"} {
		write(filepath.Join(here, name), "content", 1e18)
	}
	check(t, os.Symlink("a", filepath.Join(here, "link")))
	write(filepath.Join(there, "size"), "contents", 1e18)
	write(filepath.Join(there, "time"), "content", 1e18+1)
	write(filepath.Join(there, "content"), "Content", 1e18)
	write(filepath.Join(there, "same"), "content", 1e18)
	write(filepath.Join(there, "folder"), "a file", 1e18)
	write(filepath.Join(there, "file/is a folder"), "", 1e18)
	check(t, os.Symlink("b", filepath.Join(there, "link")))
	before := describe(t, target)
	got := copied(t, source, target, transfer.Options{Move: true})
	conflict := transfer.ErrConflict
	got.tells(t, map[string]error{
		"/size": conflict, "/time": conflict, "/content": conflict, "/folder": conflict, "/file": conflict, "/link": conflict,
	})
	same(t, "the target", before, describe(t, target))
	if left := describe(t, source); len(left) != 7 { // all but what was the same
		t.Errorf("left of the source: %q", left)
	}
}

// As long as one name of a file can't be moved none of the others is: the source says that they are names of one.
func TestNamesOfOneFileAreMovedTogether(t *testing.T) {
	for inTheWay, mode := range map[string]uint32{"b": unix.S_IFDIR, "folder": unix.S_IFREG} {
		t.Run(inTheWay, func(t *testing.T) {
			here := filepath.Join(t.TempDir(), "here")
			source, target := folder(t, here), inMemory(t)
			check(t, os.WriteFile(filepath.Join(here, "a"), []byte("content"), 0o644))
			check(t, os.Mkdir(filepath.Join(here, "folder"), 0o755))
			for _, name := range []string{"b", "folder/c"} {
				check(t, os.Link(filepath.Join(here, "a"), filepath.Join(here, name)))
			}
			before := describe(t, source)
			in, err := target.Make(t.Context(), blobstore.RootIno, inTheWay, blobstore.NewNode{Mode: mode | 0o755})
			check(t, err)
			copied(t, source, target, transfer.Options{Move: true}).tells(t, map[string]error{"/" + inTheWay: transfer.ErrConflict})
			same(t, "the source", before, describe(t, source))
			target.Forget(in.Ino, 1)
			remove := map[string]func(context.Context, blobstore.Ino, string) error{"b": target.Rmdir, "folder": target.Unlink}[inTheWay]
			check(t, remove(t.Context(), blobstore.RootIno, inTheWay))
			copied(t, source, target, transfer.Options{Move: true}).tells(t, nil)
			same(t, "the target", before, describe(t, target))
			if left := describe(t, source); len(left) > 0 {
				t.Errorf("left of the source: %q", left)
			}
		})
	}
}

// A hooked drive has calls of a file looked at, or answered, before they reach it.
type hooked struct {
	blobstore.Drive
	read  func(ino blobstore.Ino, p []byte) // after the first read of an open file
	write func(off int64, n int) error
	xattr func(name string) error
	any   func() error // before every call
}

type hookedFile struct {
	blobstore.File
	drive *hooked
	ino   blobstore.Ino
	once  atomic.Bool
}

func (d *hooked) file(f blobstore.File, ino blobstore.Ino, err error) (blobstore.File, error) {
	if err != nil {
		return nil, err
	}
	return &hookedFile{File: f, drive: d, ino: ino}, nil
}

func (d *hooked) before() error {
	if d.any == nil {
		return nil
	}
	return d.any()
}

func (d *hooked) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error) {
	if err := d.before(); err != nil {
		return nil, err
	}
	f, err := d.Drive.Open(ctx, ino, flags)
	return d.file(f, ino, err)
}

func (d *hooked) Create(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags) (blobstore.File, blobstore.Attr, bool, error) {
	if err := d.before(); err != nil {
		return nil, blobstore.Attr{}, false, err
	}
	f, attr, created, err := d.Drive.Create(ctx, parent, name, node, flags)
	f, err = d.file(f, attr.Ino, err)
	return f, attr, created, err
}

func (d *hooked) Make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (blobstore.Attr, error) {
	if err := d.before(); err != nil {
		return blobstore.Attr{}, err
	}
	return d.Drive.Make(ctx, parent, name, node)
}

func (d *hooked) Link(ctx context.Context, ino, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	if err := d.before(); err != nil {
		return blobstore.Attr{}, err
	}
	return d.Drive.Link(ctx, ino, parent, name)
}

func (d *hooked) SetAttr(ctx context.Context, ino blobstore.Ino, change blobstore.AttrChange) (blobstore.Attr, error) {
	if err := d.before(); err != nil {
		return blobstore.Attr{}, err
	}
	return d.Drive.SetAttr(ctx, ino, change)
}

func (d *hooked) Unlink(ctx context.Context, parent blobstore.Ino, name string) error {
	if err := d.before(); err != nil {
		return err
	}
	return d.Drive.Unlink(ctx, parent, name)
}

func (d *hooked) SetXattr(ctx context.Context, ino blobstore.Ino, name string, value []byte, mode blobstore.XattrMode) error {
	if err := d.before(); err != nil {
		return err
	}
	if d.xattr != nil {
		if err := d.xattr(name); err != nil || name == blobstore.XattrJob {
			return err
		}
	}
	return d.Drive.SetXattr(ctx, ino, name, value, mode)
}

func (f *hookedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.drive.before(); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(ctx, p, off)
	if f.drive.read != nil && n > 0 && !f.once.Swap(true) {
		f.drive.read(f.ino, p[:n])
	}
	return n, err
}

func (f *hookedFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.drive.before(); err != nil {
		return 0, err
	}
	if f.drive.write != nil {
		if err := f.drive.write(off, len(p)); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(ctx, p, off)
}

func TestAFileThatChangesIsCopiedAgainOrTold(t *testing.T) {
	for _, changes := range []int32{1, 2, 100} {
		t.Run(fmt.Sprint(changes, " times"), func(t *testing.T) {
			dir := t.TempDir()
			source, target := folder(t, dir), inMemory(t)
			path := filepath.Join(dir, "file")
			check(t, os.WriteFile(path, []byte("0"), 0o644))
			var n atomic.Int32
			changing := &hooked{Drive: source, read: func(blobstore.Ino, []byte) {
				if i := n.Add(1); i <= changes {
					check(t, os.WriteFile(path, fmt.Appendf(nil, "%d", i), 0o644))
				}
			}}
			got := copied(t, changing, target, transfer.Options{Move: true})
			if changes < 3 {
				got.wholly(t)
				if content := describe(t, target); len(content) != 1 || !strings.Contains(content[0], fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%d", changes)))) {
					t.Errorf("got %q, want the content after %d changes", content, changes)
				}
				return
			}
			got.tells(t, map[string]error{"/file": transfer.ErrChanged})
			if there, here := describe(t, target), describe(t, source); len(there) != 0 || len(here) != 1 {
				t.Errorf("there: %q, here: %q; want it here alone", there, here)
			}
		})
	}
}

func TestWhatGoesWrongWithOneFileIsToldAndTheRestGoesOn(t *testing.T) {
	for _, c := range []struct {
		name string
		hook func(*hooked)
		want error
	}{
		{"it reads back differently", func(d *hooked) {
			d.read = func(_ blobstore.Ino, p []byte) {
				if len(p) == 5 {
					p[0]++
				}
			}
		}, transfer.ErrDiffers},
		{"there is no room for it", func(d *hooked) {
			d.write = func(_ int64, n int) error {
				if n == 5 {
					return blobstore.ErrNoSpace
				}
				return nil
			}
		}, blobstore.ErrNoSpace},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			source, target := folder(t, dir), &hooked{Drive: inMemory(t)}
			check(t, os.WriteFile(filepath.Join(dir, "wrong"), []byte("wrong"), 0o644))
			check(t, os.WriteFile(filepath.Join(dir, "fine"), []byte("fine"), 0o644))
			c.hook(target)
			copied(t, source, target, transfer.Options{Move: true}).tells(t, map[string]error{"/wrong": c.want})
			here, there := describe(t, source), describe(t, target.Drive)
			if len(here) != 1 || len(there) != 1 || !strings.HasPrefix(here[0], `"/wrong"`) || !strings.HasPrefix(there[0], `"/fine"`) {
				t.Errorf("here: %q, there: %q", here, there)
			}
		})
	}
}

// errGone stands for the end of the program: from then on nothing that it does reaches the target.
var errGone = fmt.Errorf("the program is gone: %w", transfer.ErrNoAnswer)

func TestARunThatEndsAtAnyCallIsGoneOnWith(t *testing.T) {
	for _, move := range []bool{false, true} {
		for _, kind := range []string{"memory", "folder"} {
			t.Run(fmt.Sprintf("to %s, move %v", kind, move), func(t *testing.T) {
				random := rand.New(rand.NewPCG(6, 1))
				for range 5 {
					dir := t.TempDir()
					makeTree(t, filepath.Join(dir, "source"), 2)
					source, target := folder(t, filepath.Join(dir, "source")), inMemory(t)
					if kind == "folder" {
						target = folder(t, filepath.Join(dir, "target"))
					}
					want := describe(t, source)
					for kills := 0; ; kills++ {
						var calls atomic.Int64
						most := int64(random.IntN(160))
						dying := &hooked{Drive: target, any: func() error {
							if calls.Add(1) > most && kills < 3 {
								return errGone
							}
							return nil
						}}
						got := copied(t, source, dying, transfer.Options{Move: move})
						if got.err == nil {
							got.wholly(t)
							break
						}
						if !errors.Is(got.err, errGone) {
							t.Fatal(got.err)
						}
					}
					files := func(lines []string) []string { // what is moved from a folder changes its times
						return slices.DeleteFunc(lines, func(line string) bool { return move && strings.Contains(line, "mode 40") })
					}
					same(t, "the target", files(want), files(describe(t, target)))
				}
			})
		}
	}
}

func TestWhatAnotherRunHadInTheMakingIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	source, target := folder(t, filepath.Join(dir, "source")), folder(t, filepath.Join(dir, "target"))
	check(t, os.WriteFile(filepath.Join(dir, "source/file"), []byte("whole"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "source/left"), []byte("ha"), 0o300))
	check(t, os.WriteFile(filepath.Join(dir, "target/file"), []byte("who"), 0o300))
	check(t, os.WriteFile(filepath.Join(dir, "target/.mediafs-part-1-1"), []byte("who"), 0o300))
	copied(t, source, target, transfer.Options{}).tells(t, map[string]error{"/left": transfer.ErrLeftover})
	if got := describe(t, target); len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("%x", sha256.Sum256([]byte("whole")))) {
		t.Errorf("got %q", got)
	}
}

func TestFilesGetTheJob(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, 3)
	source := folder(t, dir)
	var set atomic.Int64
	target := &hooked{Drive: inMemory(t), xattr: func(name string) error {
		if name == blobstore.XattrJob {
			set.Add(1)
		}
		return nil
	}}
	got := copied(t, source, target, transfer.Options{Job: "card-17"}).wholly(t)
	if set.Load() != got.Copied.Load() || set.Load() == 0 {
		t.Errorf("%d files have the job, of %d", set.Load(), got.Copied.Load())
	}
	without := &hooked{Drive: inMemory(t), xattr: func(name string) error {
		if name == blobstore.XattrJob {
			return blobstore.ErrPermission
		}
		return nil
	}}
	if got := copied(t, source, without, transfer.Options{Job: "card-17"}); !errors.Is(got.err, transfer.ErrNoJobs) {
		t.Errorf("got %v, %q, want %v", got.err, got.problems, transfer.ErrNoJobs)
	}
}
