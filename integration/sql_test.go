package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// application is a connection as a web application has it: a login that may do what mounts may, and a user's token.
func (s *store) application(t testing.TB, login string, u user) *pgx.Conn {
	t.Helper()
	conn := connect(t, s.withLogin(t, login).address)
	_, err := conn.Exec(context.Background(), "select set_config('mediafs.token', $1, false)", u.token(t))
	check(t, err)
	return conn
}

// What an application stores by SQL is on the mounted drive within a second, and what is done on the drive the application sees, while the mount answers what
// it can from memory.
func TestWhatIsDoneBySQLIsOnTheDriveAndTheOtherWayRound(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	ctx := context.Background()
	app := s.application(t, "webapp_one", alice)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := app.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	text := func(sql string, args ...any) (value string) {
		t.Helper()
		if err := app.QueryRow(ctx, sql, args...).Scan(&value); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatalf("%s: %v", sql, err)
		}
		return value
	}
	holds := func(name, content string) func() bool {
		return func() bool {
			got, err := os.ReadFile(m.path(name))
			return err == nil && string(got) == content
		}
	}
	gone := func(name string) func() bool {
		return func() bool {
			_, err := os.Stat(m.path(name))
			return errors.Is(err, os.ErrNotExist)
		}
	}
	for i := range 20 { // the mount comes to know its root
		writeFile(t, m.path(fmt.Sprint("own", i)), "own")
	}
	if !gone("download.txt")() {
		t.Fatal("it is there before it is stored")
	}

	exec("begin")
	exec("insert into mediafs.assets (filename) values ('download.txt')")
	exec("insert into mediafs.media_blobs (asset_id, media_data) select id, 'by sql' from mediafs.assets where filename = 'download.txt'")
	exec("commit")
	until(t, "what was stored by SQL", holds("download.txt", "by sql"))
	exec("update mediafs.media_blobs set media_data = 'by sql again' where ino = (select ino from mediafs.assets where filename = 'download.txt')")
	until(t, "content that was replaced by SQL", holds("download.txt", "by sql again"))
	exec("update mediafs.assets set path = 'new folder/renamed.txt' where filename = 'download.txt'")
	until(t, "what was renamed by SQL", holds("new folder/renamed.txt", "by sql again"))
	until(t, "that the old name is gone", gone("download.txt"))
	open, err := os.Open(m.path("new folder/renamed.txt"))
	check(t, err)
	defer open.Close()
	exec("delete from mediafs.assets where filename = 'renamed.txt'")
	until(t, "that what was deleted by SQL is gone", gone("new folder/renamed.txt"))
	got := make([]byte, 12)
	if _, err := open.ReadAt(got, 0); err != nil || string(got) != "by sql again" {
		t.Errorf("a file that was deleted by SQL while it was open reads %q, %v", got, err)
	}

	writeFile(t, m.path("new folder/from the drive.txt"), "on the drive")
	if got := text("select encode(media_data, 'escape') from mediafs.media_blobs where ino = (select ino from mediafs.assets where path = 'new folder/from the drive.txt')"); got != "on the drive" {
		t.Errorf("by SQL, what was closed on the drive reads %q", got)
	}
	check(t, os.Rename(m.path("new folder/from the drive.txt"), m.path("moved.txt")))
	if got := text("select path from mediafs.assets where filename = 'moved.txt'"); got != "moved.txt" {
		t.Errorf("by SQL, what was moved on the drive is %q", got)
	}
	waitUntil(t, "it is described", func() bool {
		return text("select mime_type from mediafs.assets where filename = 'moved.txt' and described") == "text/plain"
	})
	check(t, os.Remove(m.path("moved.txt")))
	if got := text("select path from mediafs.assets where filename = 'moved.txt'"); got != "" {
		t.Errorf("by SQL, what was removed on the drive is %q", got)
	}
}

// Programs on the drive and an application make files of the same names at the same time, and write to them. Whoever was told that a file is theirs finds their
// content in it; nobody's goes silently.
func TestNothingOfTheSameNameIsLostBetweenTheDriveAndSQL(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	app := s.application(t, "webapp_two", alice)
	const names = 150
	var onDrive, bySQL [names]bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range names {
			f, err := os.OpenFile(m.path(fmt.Sprintf("file%03d", i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, os.ErrExist) {
				continue
			}
			if err == nil {
				_, err = f.WriteString("drive")
				err = errors.Join(err, f.Close())
			}
			if err != nil && !errors.Is(err, syscall.ESTALE) {
				t.Errorf("file %d on the drive: %v", i, err)
			}
			onDrive[i] = err == nil
		}
	})
	wg.Go(func() {
		for i := range names {
			err := pgx.BeginFunc(context.Background(), app, func(tx pgx.Tx) error {
				var id string
				err := tx.QueryRow(context.Background(), "insert into mediafs.assets (filename) values ($1) returning id::text", fmt.Sprintf("file%03d", names-1-i)).Scan(&id)
				if err == nil {
					_, err = tx.Exec(context.Background(), "insert into mediafs.media_blobs (asset_id, media_data) values ($1, 'sql')", id)
				}
				return err
			})
			var pg *pgconn.PgError
			if err != nil && (!errors.As(err, &pg) || pg.Code != "23505" && pg.Code != "40P01") {
				t.Errorf("file %d by SQL: %v", names-1-i, err)
			}
			bySQL[names-1-i] = err == nil
		}
	})
	wg.Wait()
	drive, sql := 0, 0
	for i := range names {
		name := fmt.Sprintf("file%03d", i)
		switch {
		case onDrive[i] && bySQL[i]:
			t.Errorf("%s was made both on the drive and by SQL", name)
		case onDrive[i]:
			drive++
			if got := readFile(t, m.path(name)); got != "drive" {
				t.Errorf("%s was made on the drive and holds %q", name, got)
			}
		case bySQL[i]:
			sql++
			if got := readFile(t, m.path(name)); got != "sql" {
				t.Errorf("%s was made by SQL and holds %q", name, got)
			}
		}
	}
	if drive == 0 || sql == 0 {
		t.Errorf("%d files were made on the drive and %d by SQL: the test shows nothing", drive, sql)
	}
	m.unmount(t)
	s.mediafs(t, "check", "--store", s.address).ok(t)
}

// What a drive tells of its assets is listed with their attributes; programs that copy files with their attributes get over that.
func TestFactsOfAssetsAreAttributesThatCopyingProgramsPassOver(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	m := s.mount(t, alice)
	facts := func(name string) map[string]string {
		t.Helper()
		found := make(map[string]string)
		for _, line := range strings.Split(s.person.run(t, m.point, "getfattr", "-d", "--absolute-names", name).ok(t), "\n") {
			if key, value, ok := strings.Cut(line, "="); ok {
				found[key] = strings.Trim(value, `"`)
			}
		}
		return found
	}
	check(t, os.Mkdir(m.path("import"), 0o700))
	s.person.run(t, m.point, "setfattr", "-n", "user.mediafs.job_id", "-v", "job 7", "import").ok(t)
	writeFile(t, m.path("import/a"), "plain text")
	waitUntil(t, "it is described", func() bool { return facts("import/a")["user.mediafs.mime_type"] == "text/plain" })
	original := facts("import/a")
	if original["user.mediafs.job_id"] != "job 7" || len(original["user.mediafs.id"]) != 36 || len(original["user.mediafs.sha256"]) != 64 {
		t.Errorf("got %q", original)
	}
	elsewhere := tempDir(t)
	give(t, s.person, elsewhere)
	for _, program := range [][]string{
		{"cp", "-a", "import/a", "copy"},
		{"cp", "--preserve=all", "import/a", "copy"},
		{"cp", "-a", "import/a", elsewhere + "/a"},
		{"cp", "-a", elsewhere + "/a", "copy back"},
		{"mv", elsewhere + "/a", "moved back"},
		{"rsync", "-aX", "import/", "synced"},
		{"rsync", "-aX", "import/", elsewhere + "/synced"},
		{"rsync", "-aX", elsewhere + "/synced/", "synced back"},
		{"tar", "--xattrs", "-cf", elsewhere + "/tar", "import"},
		{"tar", "--xattrs", "-xf", elsewhere + "/tar", "--transform=s/import/unpacked/"},
	} {
		if r := s.person.run(t, m.point, program...); r.code != 0 || r.stderr != "" {
			t.Errorf("%v: %v", program, r)
		}
	}
	for _, name := range []string{"copy", "copy back", "moved back", "synced/a", "synced back/a", "unpacked/a"} {
		got := facts(name)
		if got["user.mediafs.id"] == original["user.mediafs.id"] || len(got["user.mediafs.id"]) != 36 {
			t.Errorf("%s has the id %q, the original %q", name, got["user.mediafs.id"], original["user.mediafs.id"])
		}
	}
	check(t, os.Rename(m.path("import/a"), m.path("renamed")))
	if got := facts("renamed"); got["user.mediafs.id"] != original["user.mediafs.id"] || got["user.mediafs.job_id"] != "job 7" {
		t.Errorf("renamed it has %q, before %q", got, original)
	}
	uncounted := func(facts map[string]string) map[string]string { // opens are counted in the background
		delete(facts, "user.mediafs.access_count")
		delete(facts, "user.mediafs.last_accessed")
		return facts
	}
	before := uncounted(facts("renamed"))
	for _, args := range [][]string{{"-n", "user.mediafs.sha256", "-v", "00"}, {"-x", "user.mediafs.id"}} {
		s.person.run(t, m.point, append(append([]string{"setfattr"}, args...), "renamed")...).ok(t)
	}
	if got := uncounted(facts("renamed")); !maps.Equal(got, before) {
		t.Errorf("after setting and removing facts: got %q, before %q", got, before)
	}
	if err := syscall.Setxattr(m.path("renamed"), "user.mediafs.unknown", []byte("1"), 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a fact that there is not: %v", err)
	}
	if err := syscall.Setxattr(m.path("renamed"), "user.mediafs.job_id", make([]byte, 60_000), 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a job of 60,000 bytes: %v", err)
	}
	s.person.run(t, m.point, "setfattr", "-x", "user.mediafs.job_id", "renamed").ok(t)
	if _, has := facts("renamed")["user.mediafs.job_id"]; has {
		t.Error("the job that was removed is there")
	}
}
