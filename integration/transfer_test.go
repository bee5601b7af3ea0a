package integration

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is imported is on the drive as it was on the disk, and comes back from it the same; done again, there is nothing to do.
func TestATreeIsTheSameThereAndBack(t *testing.T) {
	requireRoot(t) // owners, devices, and attributes of root's
	onEachStore(t, func(t *testing.T, s *store) {
		source, back := filepath.Join(s.dir, "source"), filepath.Join(s.dir, "back")
		makeOddTree(t, source)
		alice := s.addUser(t, "alice")
		want := describe(t, source)
		transfer := func(command string, args ...string) string {
			t.Helper()
			return s.mediafs(t, append([]string{command, "--store", s.address, "--token-file", alice.tokenFile}, args...)...).ok(t)
		}
		if got := transfer("import", source); !strings.HasSuffix(got, "; nothing skipped\n") {
			t.Errorf("got %q", got)
		}
		m := s.mount(t, alice)
		diffLines(t, "the tree on the drive", want, describe(t, m.path("source")))
		m.unmount(t)
		transfer("export", back)
		diffLines(t, "the tree that came back", want, describe(t, filepath.Join(back, "source")))
		for _, again := range []string{transfer("import", source), transfer("export", back)} {
			if !strings.HasPrefix(again, "copied and verified 0 files (0 B)") || !strings.HasSuffix(again, "; nothing skipped\n") {
				t.Errorf("done again: got %q", again)
			}
		}
		diffLines(t, "the tree after it was exported again", want, describe(t, filepath.Join(back, "source")))
		if s.kind == postgres { // in folders, owners that are no users of the application's are found
			s.isWhole(t)
		}

		// Moved, nothing is left of it, and its copy is the same.
		if got := transfer("import", "--into", "moved/here", "--move", source); !strings.HasSuffix(got, "; nothing skipped\n") {
			t.Errorf("moved: got %q", got)
		}
		if _, err := os.Lstat(source); !os.IsNotExist(err) {
			t.Errorf("the source is still there: %v", err)
		}
		m = s.mount(t, alice)
		diffLines(t, "the tree that was moved", want, describe(t, m.path("moved/here/source")))
		m.unmount(t)
	})
}

// A store of folders goes into a database and from there into another store of folders, which is the same.
func TestAStoreIsTheSameThereAndBack(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	first, database, last := newStore(t, folder, person{}), newStore(t, postgres, person{}), newStore(t, folder, person{})
	ada := database.addUser(t, "ada", "--role", "admin")
	alice := database.addUser(t, "alice")
	for _, drive := range []string{"alice", "public"} {
		check(t, os.MkdirAll(filepath.Join(first.root, drive), 0o755))
		makeOddTree(t, filepath.Join(first.root, drive))
	}
	check(t, os.Mkdir(filepath.Join(first.root, "nothing-in-it"), 0o750))
	migrate := func(from, to string, options ...string) {
		t.Helper()
		args := append([]string{"migrate", "--from", from, "--to", to}, options...)
		if got := first.mediafs(t, args...).ok(t); !strings.HasSuffix(got, "; nothing skipped\n") {
			t.Errorf("got %q", got)
		}
	}
	migrate(first.address, database.address, "--to-token-file", ada.tokenFile)
	m := database.mount(t, alice)
	diffLines(t, "alice's drive in the database", describe(t, first.folder(alice)), describe(t, m.point))
	m.unmount(t)
	migrate(database.address, last.address, "--from-token-file", ada.tokenFile)
	for _, drive := range []string{"alice", "public", "nothing-in-it"} {
		diffLines(t, "the drive "+drive, describe(t, filepath.Join(first.root, drive)), describe(t, filepath.Join(last.root, drive)))
	}
	database.isWhole(t) // the others have owners that no application gives
}

// A library as a web application has it goes into the database of the application, and the report is one that a person understands.
func TestTheLibraryOfAnApplicationIsMigrated(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	database := newStore(t, postgres, nobody(t))
	app := &store{kind: folder, root: filepath.Join(database.dir, "media"), person: database.person, dir: database.dir}
	app.address = "file://" + app.root
	uuid, serial, text := "4b3a1c9e-7f0d-4a52-9f55-0d6f3a1be2c7", "42", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"
	for path, content := range map[string]string{
		uuid + "/1234567890-image.jpg": "\xff\xd8\xff an image", uuid + "/1234567891-video.mp4": strings.Repeat("video", 100_000), uuid + "/secret.txt": "not to be read",
		serial + "/1234567892-document.pdf": "%PDF-1.4", serial + "/1234567893-caf\xe9.jpg": "named in Latin 1",
		text + "/albums/2024/1234567894-image.png": "\x89PNG", text + "/empty.txt": "",
		"public/logo.svg": "<svg/>",
		".DS_Store":       "stray", "upload.tmp": "stray", "old files/lost.jpg": "in no user's folder",
	} {
		path = filepath.Join(app.root, path)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
	locked := filepath.Join(app.root, serial, "locked")
	check(t, os.Mkdir(locked, 0o755))
	check(t, chownAll(app.root, 65534))
	check(t, os.Chown(filepath.Join(app.root, uuid, "secret.txt"), 0, 0))
	check(t, os.Chmod(filepath.Join(app.root, uuid, "secret.txt"), 0o600))
	check(t, os.Chown(locked, 0, 0))
	check(t, os.Chmod(locked, 0o700))

	app.mediafs(t, "init", "--store", app.address).ok(t)
	ada := database.addUser(t, "ada", "--role", "admin")
	owner := database.addUser(t, uuid) // whom the application would sign in
	migrate := func() result {
		return app.mediafs(t, "migrate", "--from", app.address, "--to", database.address, "--to-token-file", ada.tokenFile)
	}
	want := `skipped: .DS_Store: it is in no drive: at the top of a store are folders that are called as users are
skipped: old files: it is in no drive: at the top of a store are folders that are called as users are
skipped: upload.tmp: it is in no drive: at the top of a store are folders that are called as users are
skipped: 42:/locked: access denied
skipped: 4b3a1c9e-7f0d-4a52-9f55-0d6f3a1be2c7:/secret.txt: access denied
copied and verified 7 files (488.3 KiB), 3 folders; skipped: 5
`
	got := migrate()
	if got.code != 1 || got.stdout != want || got.stderr != "mediafs: migrate: not all was copied: 5 skipped: see the reasons above\n" {
		t.Errorf("got %v\nwant %s", got, want)
	}
	if again := migrate(); again.code != 1 || !strings.HasSuffix(again.stdout, "copied and verified 0 files (0 B), 3 folders; there already: 7 files; skipped: 5\n") {
		t.Errorf("done again: got %v", again)
	}
	m := database.mount(t, owner)
	got = app.person.shell(t, m.point, "ls; cat *.mp4")
	if got.stdout != "1234567890-image.jpg\n1234567891-video.mp4\n"+strings.Repeat("video", 100_000) {
		t.Errorf("the user has %.300v", got)
	}
	m.unmount(t)
	all := database.mount(t, ada)
	if got := app.person.shell(t, all.point, "cat 42/*caf\xe9.jpg public/logo.svg; ls "+text+"/*").ok(t); got !=
		"named in Latin 1<svg/>"+text+"/empty.txt\n\n"+text+"/albums:\n2024\n" {
		t.Errorf("an admin sees %q", got)
	}
	all.unmount(t)
	database.isWhole(t)
}

func chownAll(root string, id int) error {
	return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
}

// A library is a tree like those that people have: many small files, some larger ones, links and holes.
func makeLibrary(t *testing.T, root string, seed uint64, folders int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 6))
	bytes := rand.NewChaCha8([32]byte{byte(seed)})
	for folder := range folders {
		dir := filepath.Join(root, fmt.Sprint("album ", folder/4), fmt.Sprint(folder))
		check(t, os.MkdirAll(dir, 0o755))
		for file := range 40 {
			size := random.IntN(8 << 10)
			if file == 0 && folder%2 == 0 {
				size = 1<<20 + random.IntN(3<<20)
			}
			content := make([]byte, size)
			_, _ = bytes.Read(content) // never fails
			path := filepath.Join(dir, fmt.Sprintf("%d-image.jpg", 1_234_567_890+file))
			check(t, os.WriteFile(path, content, 0o640))
			switch file {
			case 1:
				check(t, os.Link(path, filepath.Join(root, fmt.Sprint("best-", folder))))
			case 2:
				check(t, os.Symlink(filepath.Base(path), path+".link"))
			case 3:
				check(t, os.Truncate(path, 3<<20))
			case 4:
				check(t, unix.Setxattr(path, "user.rating", []byte("5"), 0))
			}
			at := unix.NsecToTimespec(1_700_000_000_000_000_000 + random.Int64N(1e18))
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
		}
	}
}

// killAt runs the program and kills it after so long, unless it has ended before. It says whether it was killed.
func (s *store) killAt(t *testing.T, after time.Duration, args ...string) bool {
	t.Helper()
	path, err := program()
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	said := &output{}
	cmd := s.person.command(ctx, s.dir, append([]string{path}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	check(t, cmd.Start())
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may be over
	err = cmd.Wait()
	kill.Stop()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return err != nil
}

// killsOfATransfer is also what the size of a library is made for.
var killsOfATransfer = flag.Int("kills", 4, "how `often` an import or a migration is killed before it comes to its end")

// killedOften runs the program until it comes to its end, killing it up to killsOfATransfer times before, at moments that the seed says. usual is how long it
// takes for the files that there are for four kills.
func (s *store) killedOften(t *testing.T, seed uint64, usual time.Duration, args ...string) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 7))
	for kills := range *killsOfATransfer {
		if _, err := os.Lstat(args[len(args)-1]); slices.Contains(args, "--move") && os.IsNotExist(err) {
			t.Logf("killed %d times, the last when all was moved", kills)
			return
		}
		if !s.killAt(t, time.Duration(random.Int64N(int64(usual))), args...) {
			t.Logf("killed %d times", kills)
			return
		}
	}
	if _, err := os.Lstat(args[len(args)-1]); !slices.Contains(args, "--move") || err == nil {
		t.Logf("killed %d times; at last: %s", *killsOfATransfer, s.mediafs(t, args...).ok(t))
	}
}

// An import that is killed, at any moment and again, and then done once more has everything once.
func TestFaultAnImportIsKilled(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		source := filepath.Join(s.dir, "library")
		makeLibrary(t, source, 1, 3**killsOfATransfer)
		want := describe(t, source)
		alice := s.addUser(t, "alice")
		args := func(into string) []string {
			return []string{"import", "--store", s.address, "--token-file", alice.tokenFile, "--into", into, source}
		}
		began := time.Now()
		s.mediafs(t, args("whole")...).ok(t)
		usual := time.Since(began) * 4 / time.Duration(*killsOfATransfer)
		atManyMoments(t, func(t *testing.T, seed uint64, name string) {
			s.killedOften(t, seed, usual, args(name)...)
			m := s.mount(t, alice)
			diffLines(t, "the tree that was imported", want, describe(t, m.path(name, "library")))
			m.unmount(t)
			s.isWhole(t)

			// Moved: what is in neither place is lost.
			moved := filepath.Join(s.dir, name)
			s.person.shell(t, s.dir, "cp -a library "+name).ok(t)
			s.killedOften(t, seed+1000, usual, "import", "--store", s.address, "--token-file", alice.tokenFile, "--into", "moved", "--move", moved)
			m = s.mount(t, alice)
			diffLines(t, "the tree that was moved", files(want), files(describe(t, m.path("moved", name))))
			m.unmount(t)
			if left := describeIfThere(t, moved); len(left) > 0 {
				t.Errorf("the source still has %q", left)
			}
			s.isWhole(t)
		})
	})
}

func describeIfThere(t *testing.T, root string) []string {
	t.Helper()
	if _, err := os.Lstat(root); os.IsNotExist(err) {
		return nil
	}
	return describe(t, root)
}

// The same of a migration, in both directions.
func TestFaultAMigrationIsKilled(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	first := newStore(t, folder, person{})
	drives := []string{"alice", "7", "public"}
	for i, drive := range drives {
		makeLibrary(t, filepath.Join(first.root, drive), uint64(i), *killsOfATransfer)
	}
	usual := 3 * time.Second
	atManyMoments(t, func(t *testing.T, seed uint64, _ string) {
		database, last := newStore(t, postgres, person{}), newStore(t, folder, person{})
		ada := database.addUser(t, "ada", "--role", "admin")
		first.killedOften(t, seed, usual, "migrate", "--from", first.address, "--to", database.address, "--to-token-file", ada.tokenFile)
		database.isWhole(t)
		last.killedOften(t, seed, usual, "migrate", "--from", database.address, "--to", last.address, "--from-token-file", ada.tokenFile)
		for _, drive := range drives {
			diffLines(t, "the drive "+drive, describe(t, filepath.Join(first.root, drive)), describe(t, filepath.Join(last.root, drive)))
		}
		last.isWhole(t)
	})
}

// What goes wrong with one file is one line of the report, and the rest goes on.
func TestWhatCanNotBeImportedIsToldAndTheRestGoesOn(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		if os.Geteuid() == 0 { // whom modes don't bind
			other := newStore(t, s.kind, nobody(t))
			s = other
		}
		alice := s.addUser(t, "alice")
		source := filepath.Join(s.dir, "source")
		check(t, os.Mkdir(source, 0o755))
		for _, name := range []string{"a", "b", "denied", "there", "touched", "not UTF-8 \xff"} {
			writeFile(t, filepath.Join(source, name), name)
			give(t, s.person, filepath.Join(source, name))
		}
		give(t, s.person, source)
		check(t, os.Chmod(filepath.Join(source, "denied"), 0))
		base := []string{"import", "--store", s.address, "--token-file", alice.tokenFile}
		s.mediafs(t, append(base, filepath.Join(source, "there"), filepath.Join(source, "touched"))...).ok(t)
		s.person.shell(t, source, "echo something else > there; touch touched").ok(t)

		got := s.mediafs(t, append(base, "--json", source+"/.", "nowhere")...)
		var skipped []string
		var last struct {
			Event           string
			Copied, Skipped int
			Ended           bool
		}
		for line := range strings.Lines(got.stdout) {
			var o struct{ Event, Path, Why string }
			check(t, json.Unmarshal([]byte(line), &o))
			if o.Event == "skipped" {
				skipped = append(skipped, strings.TrimPrefix(o.Path, source)+": "+o.Why)
			}
			check(t, json.Unmarshal([]byte(line), &last))
		}
		want := map[string]bool{
			"nowhere: no such file or directory":                         true,
			"/denied: access denied":                                     true,
			"/there: something else is there already, of another size":   true,
			"/touched: something else is there already, of another time": true,
		}
		for _, line := range skipped {
			if !want[line] {
				t.Errorf("skipped: %q", line)
			}
			delete(want, line)
		}
		if len(want) > 0 || got.code != 1 || last.Event != "end" || last.Copied != 3 || last.Skipped != 4 || !last.Ended {
			t.Errorf("not told: %v; got %v", want, got)
		}
		m := s.mount(t, alice)
		if got := s.person.shell(t, m.point, "cat *").ok(t); got != "abnot UTF-8 \xfftheretouched" {
			t.Errorf("on the drive is %q", got)
		}
		m.unmount(t)
		s.isWhole(t)
	})
}

// When the disk is full, what is not stored is told, nothing of it is left, nothing is removed from the source, and with more room all is there.
func TestAnImportMeetsAFullDisk(t *testing.T) {
	requireRoot(t)
	onEachKind(t, func(t *testing.T, k kind) {
		s := bareStore(t, k, person{})
		disk := s.root
		if k == postgres {
			disk = filepath.Join(s.dir, "disk")
		}
		check(t, os.Mkdir(disk, 0o755))
		smallDisk(t, disk, "size=256M")
		if k == postgres {
			check(t, os.Chmod(disk, 0o777))
			_, s.database = databaseOnDisk(t, disk)
			s.address = s.database
		}
		s.mediafs(t, "init", "--store", s.address).ok(t)
		alice := s.addUser(t, "alice")
		giveBack := fillDisk(t, disk)
		info, err := os.Stat(filepath.Join(disk, "ballast"))
		check(t, err)
		check(t, os.Truncate(filepath.Join(disk, "ballast"), info.Size()-12<<20))
		s.importsWhenThereIsRoom(t, alice, "no space left", giveBack)
	})
}

// The same of a full quota.
func TestAnImportMeetsAFullQuota(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		s.mount(t, alice).unmount(t) // makes the drive
		s.limit(t, alice, "none", "200", nil)
		s.importsWhenThereIsRoom(t, alice, "quota", func() {
			if q := s.quota(t, alice); q.Files > 200 {
				t.Errorf("the drive holds %d files", q.Files)
			}
			s.limit(t, alice, "8M", "none", nil) // now the bytes are too many
			s.importsTooMuch(t, alice, "quota")
			if q := s.quota(t, alice); q.Bytes > 8<<20 {
				t.Errorf("the drive holds %d bytes", q.Bytes)
			}
			s.limit(t, alice, "1G", "10000", nil)
		})
		m := s.mount(t, alice)
		s.isExact(t, alice, m)
		m.unmount(t)
	})
}

// importsWhenThereIsRoom moves a library into a drive that has no room for all of it, and then again.
func (s *store) importsWhenThereIsRoom(t *testing.T, u user, why string, makeRoom func()) {
	t.Helper()
	source := filepath.Join(s.dir, "library")
	makeLibrary(t, source, 3, 12)
	want := describe(t, source)
	s.importsTooMuch(t, u, why)
	if s.kind == folder {
		check(t, filepath.WalkDir(s.folder(u), func(path string, _ os.DirEntry, err error) error {
			if strings.Contains(path, ".mediafs-part-") {
				t.Errorf("left in the making: %s", path)
			}
			return err
		}))
	}
	makeRoom()
	s.mediafs(t, "import", "--store", s.address, "--token-file", u.tokenFile, "--move", source).ok(t)
	m := s.mount(t, u)
	diffLines(t, "the library", files(want), files(describe(t, m.path("library"))))
	m.unmount(t)
	s.isWhole(t)
	if left := describeIfThere(t, source); len(left) > 0 {
		t.Errorf("the source still has %q", left)
	}
}

// importsTooMuch moves what is left of a library, and fails the test unless each of what stays there is told once, and why. On a full disk a database may lack
// the room even to note that what was in the making is given up; that is told too, and the exit code is the same.
func (s *store) importsTooMuch(t *testing.T, u user, why string) {
	t.Helper()
	source := filepath.Join(s.dir, "library")
	got := s.mediafs(t, "import", "--store", s.address, "--token-file", u.tokenFile, "--move", source)
	told := make(map[string]bool)
	for line := range strings.Lines(got.stdout) {
		if path, reason, _ := strings.Cut(strings.TrimPrefix(line, "skipped: "), ": "); strings.HasPrefix(line, "skipped: ") {
			if told[path] {
				t.Errorf("told twice: %q", line)
			}
			told[path] = true
			if !strings.Contains(reason, why) {
				t.Errorf("told: %q, want %q", line, why)
			}
		}
	}
	if got.code != 1 || len(told) == 0 || !strings.HasSuffix(got.stdout, fmt.Sprintf("; skipped: %d\n", len(told))) {
		t.Errorf("%d are told to be skipped: exit code %d\n%.500s ...\n%s", len(told), got.code, got.stdout, got.stderr)
	}
}

// files are the lines of describe that are of no folder: what is removed from a folder changes its times, and a run that goes on finds those.
func files(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.Contains(line, `" mode 40`) })
}
