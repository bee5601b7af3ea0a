package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A raid is two drives of one store: alice's, which holds something of every kind, and bob's, from where hers is attacked.
type raid struct {
	*store
	alice, bob *mount
}

// onEachRaid runs a test against two drives on a fresh store of each kind.
func onEachRaid(t *testing.T, test func(t *testing.T, r *raid)) {
	onEachStore(t, func(t *testing.T, s *store) { test(t, newRaid(t, s)) })
}

func newRaid(t *testing.T, s *store, options ...string) *raid {
	t.Helper()
	r := &raid{store: s, alice: s.fillAlices(t)}
	r.bob = s.mount(t, s.addUser(t, "bob"), options...)
	s.person.shell(t, r.bob.point, "mkdir d; echo mine >f; ln f g").ok(t)
	return r
}

// untouched attacks alice's drive and fails the test if anything of it is different afterwards.
func (r *raid) untouched(t *testing.T, attack func()) {
	t.Helper()
	before := r.fingerprint(t)
	if len(before) < 10 {
		t.Fatalf("alice has too little to lose: %q", before)
	}
	attack()
	diffLines(t, "alice's drive", before, r.fingerprint(t))
}

// fingerprint is all that alice has, as her mount shows it and as the store keeps it. What reading changes is left out.
func (r *raid) fingerprint(t *testing.T) []string {
	t.Helper()
	lines := r.listingOf(t, r.alice.point)
	if r.kind == folder {
		return append(lines, r.listingOf(t, filepath.Join(r.root, "alice"))...)
	}
	conn := r.connect(t)
	for _, table := range []string{"nodes", "entries", "chunks", "xattrs"} {
		var digest string
		query := `SELECT count(*) || ' ' || md5(string_agg(r::text, ' ' ORDER BY r::text))
			FROM (SELECT to_jsonb(r) - '{access_count,last_accessed_at,atime_ns}'::text[] AS r FROM mediafs.` + table + ` r
				JOIN mediafs.drives d USING (drive_id) WHERE d.owner = 'alice') r`
		check(t, conn.QueryRow(context.Background(), query).Scan(&digest))
		lines = append(lines, table+" "+digest)
	}
	return lines
}

// listingOf is the names, attributes, contents and extended attributes of a tree, but for what the drive knows of its files.
func (r *raid) listingOf(t *testing.T, dir string) []string {
	t.Helper()
	out := r.person.shell(t, dir, `
		find . -printf '%p %y %i %n %m %U %G %s %T@ %C@ %l\n' | sort
		find . -type f -print0 | sort -z | xargs -0 sha256sum
		getfattr -Rhd -m '^(trusted|security|user\.([^m]|m[^e]))' . | sort`).ok(t)
	return strings.Split(out, "\n")
}

// An attempt is something that must end in a certain errno.
type attempt struct {
	what string
	do   func() error
	want error
}

func attempts(t *testing.T, list []attempt) {
	t.Helper()
	for _, a := range list {
		if err := a.do(); !errors.Is(err, a.want) {
			t.Errorf("%s: got %v, want %v", a.what, err, a.want)
		}
	}
}

// opening is an attempt to open something, as openat2(2) does it. Like all that tests open, it is not for the programs that others start meanwhile:
// a drive would be in use for as long as those run.
func opening(dir int, path string, how unix.OpenHow) func() error {
	how.Flags |= unix.O_CLOEXEC
	return func() error {
		fd, err := unix.Openat2(dir, path, &how)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
}

// folderAt opens a folder for as long as the test.
func folderAt(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { check(t, unix.Close(fd)) })
	return fd
}

// The store follows no link, and the kernel follows it as far as who asks may go: another user of the machine gets from bob's
// drive no nearer to alice's than without it.
func TestALinkOnADriveOpensNothingOfAnothers(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		r := newRaid(t, s, "--allow-other")
		check(t, os.Chmod(r.bob.point, 0o777))
		visitor := nobody(t)
		secret := "secret-" + marker
		inStore := filepath.Join("..", "alice", secret) // where a folder store has it
		for name, target := range map[string]string{
			"absolute": r.alice.path(secret), "relative": filepath.Join("..", filepath.Base(r.alice.point), secret),
			"sibling": inStore, "chain3": "chain2", "chain2": "./d/../chain1", "chain1": r.alice.path(secret),
			"loop1": "loop2", "loop2": "loop1", "dir": r.alice.point, "up": "..", "proc": "/proc/self/root" + r.alice.path(secret),
		} {
			check(t, os.Symlink(target, r.bob.path(name)))
		}
		bob := folderAt(t, r.bob.point)
		read := func(name string, resolve uint64) func() error {
			return opening(bob, name, unix.OpenHow{Flags: unix.O_RDONLY, Resolve: resolve})
		}
		r.untouched(t, func() {
			visitor.on(t, func() {
				attempts(t, []attempt{
					{"an absolute link", read("absolute", 0), unix.EACCES},
					{"a relative link", read("relative", 0), unix.EACCES},
					{"a chain of links", read("chain3", 0), unix.EACCES},
					{"a link to the drive", read("dir/"+secret, 0), unix.EACCES},
					{"a link through /proc", read("proc", 0), unix.EACCES},
					{"writing through a link", opening(bob, "absolute", unix.OpenHow{Flags: unix.O_WRONLY | unix.O_TRUNC}), unix.EACCES},
					{"creating through a link", opening(bob, "dir/new", unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o666}), unix.EACCES},
					{"renaming into a link", func() error { return unix.Renameat(bob, "f", bob, "dir/f") }, unix.EACCES},
					{"removing through a link", func() error { return unix.Unlinkat(bob, "dir/"+secret, 0) }, unix.EACCES},
				})
			})
			attempts(t, []attempt{
				{"the place beside the folder in the store", read("sibling", 0), unix.ENOENT},
				{"a loop", read("loop1", 0), unix.ELOOP},
				{"a link itself", read("absolute", unix.RESOLVE_NO_SYMLINKS), unix.ELOOP},
				{"an absolute link, beneath the drive", read("absolute", unix.RESOLVE_BENEATH), unix.EXDEV},
				{"a relative link, beneath the drive", read("relative", unix.RESOLVE_BENEATH), unix.EXDEV},
				{"a chain, beneath the drive", read("chain3", unix.RESOLVE_BENEATH), unix.EXDEV},
				{"the folder above, beneath the drive", read("..", unix.RESOLVE_BENEATH), unix.EXDEV},
				{"a link up, beneath the drive", read("up/up", unix.RESOLVE_BENEATH), unix.EXDEV},
				{"a link with the drive as the root", read("absolute", unix.RESOLVE_IN_ROOT), unix.ENOENT},
				{"a way up with the drive as the root", read("../../../f", unix.RESOLVE_IN_ROOT), nil},
				{"open without following", opening(bob, "absolute", unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NOFOLLOW}), unix.ELOOP},
			})
		})
	})
}

// on does something as this person on one thread, so that its errno is the kernel's word, and then is ourselves again: a thread
// that ended would take mounts with it (PR_SET_PDEATHSIG in prctl(2)). The saved user id, by which it comes back, counts in no
// check but that of a mount without --allow-other, which all three must belong to. What is done must not wait for other goroutines.
func (p person) on(t *testing.T, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must := func(call uintptr, a, b, c int) {
		t.Helper()
		if _, _, errno := unix.RawSyscall(call, uintptr(a), uintptr(b), uintptr(c)); errno != 0 {
			t.Fatalf("could not become user %d, group %d: %v", p.uid, p.gid, errno)
		}
	}
	uid, gid := int(p.uid), int(p.gid)
	must(unix.SYS_SETGROUPS, 0, 0, 0)
	must(unix.SYS_SETRESGID, gid, gid, 0)
	must(unix.SYS_SETRESUID, uid, uid, 0)
	do()
	must(unix.SYS_SETRESUID, 0, 0, 0)
	must(unix.SYS_SETRESGID, 0, 0, 0)
}

// A link that changes its target all the while leads to one of its targets, or nowhere.
func TestALinkThatIsSwappedWhileInUseLeadsToItsTargetsAlone(t *testing.T) {
	onEachRaid(t, func(t *testing.T, r *raid) {
		check(t, os.Mkdir(r.bob.path("inside"), 0o755))
		writeFile(t, r.bob.path("inside", "same-number"), "mine\n")
		writeFile(t, r.bob.path("same-number"), "mine\n")
		check(t, os.Symlink("inside", r.bob.path("way")))
		check(t, os.Symlink("../"+filepath.Base(r.alice.point), r.bob.path("trap")))
		bob := folderAt(t, r.bob.point)
		const rounds = 300
		r.untouched(t, func() {
			var swapper sync.WaitGroup
			swapper.Go(func() {
				for range rounds {
					if err := unix.Renameat2(bob, "way", bob, "trap", unix.RENAME_EXCHANGE); err != nil {
						t.Errorf("swap: %v", err)
						return
					}
				}
			})
			found, refused := 0, 0
			for i := 0; i < rounds || found == 0 && i < 100*rounds; i++ {
				how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
				fd, err := unix.Openat2(bob, "way/same-number", &how)
				switch {
				case err == nil:
					content := make([]byte, 64)
					n, err := unix.Read(fd, content)
					if err != nil || string(content[:n]) != "mine\n" {
						t.Errorf("read %q, %v", content[:max(n, 0)], err)
					}
					check(t, unix.Close(fd))
					found++
				case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EAGAIN):
					refused++
				default:
					t.Errorf("open: %v, want EXDEV", err)
				}
			}
			swapper.Wait()
			if found == 0 {
				t.Errorf("the link was never in its place, and %d times out of it: the test shows nothing", refused)
			}
		})
	})
}

func TestTheRootOfADriveHasNothingAboveIt(t *testing.T) {
	onEachRaid(t, func(t *testing.T, r *raid) {
		bob := folderAt(t, r.bob.point)
		var above, outside unix.Stat_t
		check(t, unix.Stat(filepath.Join(r.bob.point, ".."), &above))
		check(t, unix.Stat(r.dir, &outside))
		if above.Dev != outside.Dev || above.Ino != outside.Ino {
			t.Errorf("above the root there is %d:%d, want the folder with the mountpoint, %d:%d", above.Dev, above.Ino, outside.Dev, outside.Ino)
		}
		r.untouched(t, func() {
			attempts(t, []attempt{
				{"make ..", func() error { return unix.Mkdirat(bob, "..", 0o755) }, unix.EEXIST},
				{"remove ..", func() error { return unix.Unlinkat(bob, "..", unix.AT_REMOVEDIR) }, unix.ENOTEMPTY},
				{"remove .", func() error { return unix.Unlinkat(bob, ".", unix.AT_REMOVEDIR) }, unix.EINVAL},
				{"remove the root", func() error { return unix.Rmdir(r.bob.point) }, unix.EBUSY},
				{"rename ..", func() error { return unix.Renameat(bob, "..", bob, "d/x") }, unix.EBUSY},
				{"rename to ..", func() error { return unix.Renameat(bob, "d", bob, "..") }, unix.EBUSY},
				{"rename the root", func() error { return unix.Rename(r.bob.point, r.bob.point+"2") }, unix.EBUSY},
				{"open ../alice", opening(bob, "../alice", unix.OpenHow{Flags: unix.O_RDONLY}), unix.ENOENT},
				{"open .mediafs", opening(bob, ".mediafs", unix.OpenHow{Flags: unix.O_RDONLY}), unix.ENOENT},
				{"open ../.mediafs/accounts.json", opening(bob, "../.mediafs/accounts.json", unix.OpenHow{Flags: unix.O_RDONLY}), unix.ENOENT},
			})
		})
	})
}

func TestNothingMovesFromDriveToDrive(t *testing.T) {
	onEachRaid(t, func(t *testing.T, r *raid) {
		alice, bob := folderAt(t, r.alice.point), folderAt(t, r.bob.point)
		hers := "secret-" + marker
		open, err := unix.Openat(alice, hers, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		check(t, err)
		defer unix.Close(open)
		self := fmt.Sprintf("/proc/self/fd/%d", open)
		clone := func() error {
			fd, err := unix.Openat(bob, "clone", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			check(t, err)
			defer unix.Close(fd)
			return unix.IoctlFileClone(fd, open)
		}
		r.untouched(t, func() {
			attempts(t, []attempt{
				{"link hers to bob's", func() error { return unix.Linkat(alice, hers, bob, "x", 0) }, unix.EXDEV},
				{"link bob's to hers", func() error { return unix.Linkat(bob, "f", alice, "x", 0) }, unix.EXDEV},
				{"link her open file", func() error { return unix.Linkat(unix.AT_FDCWD, self, bob, "x", unix.AT_SYMLINK_FOLLOW) }, unix.EXDEV},
				{"rename hers to bob's", func() error { return unix.Renameat(alice, hers, bob, "x") }, unix.EXDEV},
				{"rename bob's to hers", func() error { return unix.Renameat(bob, "f", alice, hers) }, unix.EXDEV},
				{"rename her folder", func() error { return unix.Renameat(alice, marker, bob, "d") }, unix.EXDEV},
				{"exchange", func() error { return unix.Renameat2(alice, hers, bob, "f", unix.RENAME_EXCHANGE) }, unix.EXDEV},
				{"rename unless it is there", func() error { return unix.Renameat2(bob, "f", alice, "x", unix.RENAME_NOREPLACE) }, unix.EXDEV},
				{"clone", clone, unix.EXDEV},
			})
		})
		if got := readFile(t, r.bob.path("f")); got != "mine\n" {
			t.Errorf("bob's file holds %q", got)
		}
	})
}

// A name is bytes: whatever it looks like, it is one name of one folder, and nobody else's.
func TestANameIsOneNameWhateverItLooksLike(t *testing.T) {
	onEachRaid(t, func(t *testing.T, r *raid) {
		names := []string{
			"a\u2215b", "a\u2044b", "a\uff0fb", `a\b`, `..\alice`, `\\alice\share`, "...", ". ", ".. ", " ", "%2f",
			"..%2falice", "%00", "con", "NUL.txt", "a:b", "C:",
			"new\nline", "\r", "\t", "\x1b[2J\x1b]0;title\x07", "\x01\x7f", "\u202egnp.exe", "\u200b", "\ufeffbom", "e\u0301", "\u00e9",
			"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xc3", "a\xf0\x9f", "-rf", "--", "$(touch x)", "`id`", "';--", `"`, "*", "~", "~root", "lost+found",
			"alice", "bob", "public", ".mediafs", "secret-" + marker, "same-number",
			strings.Repeat("\xff", 255), strings.Repeat("x", 255), strings.Repeat("\u00e9", 127) + "x",
		}
		slices.Sort(names)
		tooLong := []string{strings.Repeat("x", 256), strings.Repeat("\u00e9", 128), strings.Repeat("y", 4000)}
		bob := folderAt(t, r.bob.point)
		base := folderAt(t, r.bob.path("d"))
		r.untouched(t, func() {
			for _, name := range names {
				fd, err := unix.Openat(base, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
				if err != nil {
					t.Errorf("create %q: %v", name, err)
					continue
				}
				_, err = unix.Write(fd, []byte(name))
				check(t, errors.Join(err, unix.Close(fd)))
			}
			list := func() (got []string) {
				entries, err := os.ReadDir(r.bob.path("d"))
				check(t, err)
				for _, entry := range entries {
					got = append(got, entry.Name())
				}
				slices.Sort(got)
				return got
			}
			if got := list(); !slices.Equal(got, names) {
				t.Errorf("listed %q, want %q", got, names)
			}
			for _, name := range names {
				if got := readFile(t, r.bob.path("d")+"/"+name); got != name {
					t.Errorf("%q holds %q", name, got)
				}
			}
			// In a folder of that name, moved there and back, and gone.
			for _, name := range names {
				check(t, unix.Mkdirat(bob, name, 0o700))
				check(t, unix.Renameat(base, name, bob, name+"/"+name))
				if got := readFile(t, r.bob.point+"/"+name+"/"+name); got != name {
					t.Errorf("%q, moved, holds %q", name, got)
				}
				check(t, unix.Unlinkat(bob, name+"/"+name, 0))
				check(t, unix.Unlinkat(bob, name, unix.AT_REMOVEDIR))
			}
			if got := list(); len(got) != 0 {
				t.Errorf("left: %q", got)
			}
			for _, name := range tooLong {
				attempts(t, []attempt{
					{"create", opening(bob, name, unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o600}), unix.ENAMETOOLONG},
					{"open", opening(bob, name, unix.OpenHow{Flags: unix.O_RDONLY}), unix.ENAMETOOLONG},
					{"mkdir", func() error { return unix.Mkdirat(bob, name, 0o700) }, unix.ENAMETOOLONG},
					{"symlink", func() error { return unix.Symlinkat("f", bob, name) }, unix.ENAMETOOLONG},
					{"rename", func() error { return unix.Renameat(bob, "f", bob, name) }, unix.ENAMETOOLONG},
					{"link", func() error { return unix.Linkat(bob, "f", bob, name, 0) }, unix.ENAMETOOLONG},
				})
			}
		})
	})
}

// Two programs that move two folders into each other at the same time make no loop, and lose neither: not on one mount, where the
// kernel lets one rename wait for the other, and not on two.
func TestFoldersThatRaceIntoEachOtherMakeNoLoop(t *testing.T) {
	onEachRaid(t, func(t *testing.T, r *raid) {
		const rounds = 30
		second := r.mount(t, user{"bob", filepath.Join(r.dir, "bob.token")})
		for what, other := range map[string]*mount{"one mount": r.bob, "two mounts": second} {
			r.untouched(t, func() {
				for round := range rounds {
					dir, there := r.bob.path("d", fmt.Sprint(what, round)), other.path("d", fmt.Sprint(what, round))
					check(t, errors.Join(os.MkdirAll(filepath.Join(dir, "a", "x"), 0o755), os.MkdirAll(filepath.Join(dir, "b", "y"), 0o755)))
					var racers sync.WaitGroup
					var errs [2]error
					racers.Go(func() { errs[0] = unix.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b", "y", "a")) })
					racers.Go(func() { errs[1] = unix.Rename(filepath.Join(there, "b"), filepath.Join(there, "a", "x", "b")) })
					racers.Wait()
					moved := 0
					for _, err := range errs {
						switch {
						case err == nil:
							moved++
						case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT):
							t.Errorf("%s, round %d: %v, want EINVAL or ENOENT", what, round, err)
						}
					}
					if moved != 1 {
						t.Errorf("%s, round %d: %d of the two were moved: %v", what, round, moved, errs)
					}
				}
			})
		}
		check(t, errors.Join(os.Mkdir(r.bob.path("all"), 0o755), os.Rename(r.bob.path("d"), r.bob.path("all", "d"))))
		second.unmount(t)
		r.bob.unmount(t)
		r.bob = r.mount(t, user{"bob", filepath.Join(r.dir, "bob.token")})
		all := r.person.run(t, r.bob.path("all", "d"), "find", ".", "-type", "d", "-printf", ".").ok(t)
		if want := 1 + 2*rounds*5; len(all) != want {
			t.Errorf("%d folders are left, want %d", len(all), want)
		}
	})
}
