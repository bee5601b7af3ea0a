package pgstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// An application is a connection with a login that may do what mounts may, for one session.
type application struct {
	*pgx.Conn
	t *testing.T
}

func newApplication(t *testing.T, url string, session auth.Session) application {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	const role = `do $$ begin create role application login in role mediafs; exception when duplicate_object or unique_violation then null; end $$`
	if _, err := admin.Exec(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), pgtest.Login(t, url, "application"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	a := application{conn, t}
	token := "guest"
	if session.Role != auth.RoleGuest {
		token = session.Token.Reveal()
	}
	a.exec("select set_config('mediafs.token', $1, false)", token)
	return a
}

func (a application) exec(sql string, args ...any) {
	a.t.Helper()
	if _, err := a.Exec(a.t.Context(), sql, args...); err != nil {
		a.t.Fatalf("%.200s: %v", sql, err)
	}
}

// text runs a query for one text.
func (a application) text(sql string, args ...any) (value string) {
	a.t.Helper()
	if err := a.QueryRow(a.t.Context(), sql, args...).Scan(&value); err != nil {
		a.t.Fatalf("%.200s: %v", sql, err)
	}
	return value
}

// fails checks that a statement gives an error that says something, of a code.
func (a application) fails(wantCode, says, sql string, args ...any) {
	a.t.Helper()
	_, err := a.Exec(a.t.Context(), sql, args...)
	if code(err) != wantCode || !strings.Contains(err.Error(), says) {
		a.t.Errorf("%.200s: got %v, want %q, SQLSTATE %s", sql, err, says, wantCode)
	}
}

const contentOf = "select encode(media_data, 'escape') from mediafs.media_blobs where ino = mediafs.asset_ino($1)"

func TestAnApplicationStoresChangesAndReadsAssets(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	d := attach(t, url, alice, pgstore.Options{})
	a := newApplication(t, url, alice)
	id := a.text("insert into mediafs.assets (filename, user_id) values ('download.txt', 'alice') returning id::text")
	a.exec("insert into mediafs.media_blobs (asset_id, media_data) values ($1, 'first')", id)
	if got := a.text(contentOf, id); got != "first" {
		t.Errorf("got %q", got)
	}
	for _, content := range []string{"", "second", strings.Repeat("longer ", 300_000), "\\000\\377"} {
		a.exec("update mediafs.media_blobs set media_data = decode($2, 'escape') where ino = mediafs.asset_ino($1)", id, content)
		if got := a.text(contentOf, id); got != content {
			t.Errorf("got %d bytes, want %d", len(got), len(content))
		}
	}
	if got := a.text("update mediafs.assets set filename = 'renamed.txt' where ino = mediafs.asset_ino($1) returning path", id); got != "renamed.txt" {
		t.Errorf("renamed to %q", got)
	}
	if got := a.text("update mediafs.assets set path = 'a/b/moved.txt', job_id = 'job' where ino = mediafs.asset_ino($1) returning filename || ' ' || job_id", id); got != "moved.txt job" {
		t.Errorf("moved to %q", got)
	}
	if got := a.text("select id::text from mediafs.assets where path = 'a/b/moved.txt'"); got != id {
		t.Errorf("it has the id %s, and had %s", got, id)
	}
	if got := a.text("insert into mediafs.assets (filename, job_id) values ('one', 'import 1') returning path"); got != "import 1/one" {
		t.Errorf("what has a job and no path is at %q", got)
	}
	folder, err := d.Lookup(t.Context(), blobstore.RootIno, "import 1")
	if err != nil {
		t.Fatal(err)
	}
	if job, err := d.GetXattr(t.Context(), folder.Ino, blobstore.XattrJob); err != nil || string(job) != "import 1" {
		t.Errorf("the folder has the job %q, %v", job, err)
	}
	attr, err := d.Lookup(t.Context(), folder.Ino, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Link(t.Context(), attr.Ino, blobstore.RootIno, "two"); err != nil {
		t.Fatal(err)
	}
	if got := a.text("select count(*)::text from mediafs.assets where ino = $1", int64(attr.Ino)); got != "1" {
		t.Errorf("a file with two names is %s assets", got)
	}
	a.exec("delete from mediafs.assets where ino = $1", int64(attr.Ino))
	if _, err := d.Lookup(t.Context(), blobstore.RootIno, "two"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("the other name of what was deleted: %v", err)
	}
	a.exec("delete from mediafs.assets")
	if got := a.text("select count(*)::text from mediafs.assets"); got != "0" {
		t.Errorf("%s assets are left", got)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	isWhole(t, url)
}

func TestContentOfAnySizeGoesInAndComesOutInPieces(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	a := newApplication(t, url, alice)
	a.exec("select from mediafs.open_drive($1, 65536, 1)", alice.Token.Reveal())
	id := a.text("insert into mediafs.assets (filename) values ('film') returning id::text")
	var want []byte
	for i, n := range []int{1, 65535, 65536, 0, 200_000, 3, 17<<20 + 5, 65536} {
		piece := bytes.Repeat([]byte{byte(i), 'x', '\\'}, n/3+1)[:n]
		want = append(want, piece...)
		var size int64
		if err := a.QueryRow(t.Context(), "select mediafs.append_data($1, $2)", id, piece).Scan(&size); err != nil || size != int64(len(want)) {
			t.Fatalf("append %d bytes: got %d, %v, want %d", n, size, err, len(want))
		}
	}
	for _, r := range []struct{ from, n int }{{0, len(want)}, {1, 1}, {65535, 2}, {65536, 65536}, {131071, 70_000}, {len(want) - 1, 10}, {len(want), 10}, {len(want) + 5, 1}, {7, 0}} {
		var got []byte
		if err := a.QueryRow(t.Context(), "select mediafs.read_data($1, $2, $3)", id, r.from, r.n).Scan(&got); err != nil {
			t.Fatal(err)
		}
		low, high := min(r.from, len(want)), min(r.from+r.n, len(want))
		if !bytes.Equal(got, want[low:high]) {
			t.Errorf("bytes %d to %d: got %d bytes that differ", low, high, len(got))
		}
	}
	// Holes read as zeros.
	d := attach(t, url, alice, pgstore.Options{})
	file, ino := create(t, d, "sparse")
	write(t, file, []byte("end"), 200_000)
	if err := errors.Join(file.Flush(t.Context()), file.Close()); err != nil {
		t.Fatal(err)
	}
	if got := a.text("select md5(media_data) from mediafs.media_blobs where ino = $1", int64(ino)); got != a.text("select md5(decode(repeat('00', 200000), 'hex') || 'end')") {
		t.Error("a file with a hole reads as something else")
	}
	a.fails("22023", "range", "select mediafs.read_data($1, -1, 5)", id)
	a.fails("MF404", "there is no asset", "select mediafs.append_data('00000000-0000-8000-8000-000000000010', 'x')")
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	isWhole(t, url)
}

func TestWhatAnApplicationMayNotStoreIsOneClearErrorAndLeavesNothing(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	signIn(t, url, "bob")
	a := newApplication(t, url, alice)
	a.exec("select from mediafs.open_drive($1, 65536, 1)", alice.Token.Reveal())
	a.exec("insert into mediafs.assets (filename) values ('there')")
	state := func() string {
		return a.text(`select concat_ws(' ', (select count(*) from mediafs.nodes), (select count(*) from mediafs.entries), (select string_agg(path, ',') from mediafs.assets),
			(select sum(nodes) from mediafs.usage))`)
	}
	before := state()
	a.fails("42501", "'alice', not for the user 'bob'", "insert into mediafs.assets (filename, user_id) values ('planted', 'bob')")
	a.fails("23505", "there already", "insert into mediafs.assets (filename) values ('there')")
	a.fails("23505", "there already", "insert into mediafs.assets (path) values ('/there')")
	a.fails("MF020", "no folder", "insert into mediafs.assets (path) values ('there/file')")
	a.fails("22023", "needs a filename", "insert into mediafs.assets (job_id) values (null)")
	for _, path := range []string{"..", "a/../b", "a//b", "a/", ".", strings.Repeat("n", 256), "new/" + strings.Repeat("ü", 128)} {
		a.fails("22023", "no file can be called", "insert into mediafs.assets (path) values ($1)", path)
	}
	a.fails("22023", "has a slash", "insert into mediafs.assets (filename) values ('a/b')")
	a.fails("22023", "does not end with", "insert into mediafs.assets (path, filename) values ('a/b', 'c')")
	a.fails("22023", "1048576 bytes", "insert into mediafs.assets (filename, job_id) values ('x', $1)", strings.Repeat("j", 1<<20))
	a.fails("22023", "plain text", "insert into mediafs.assets (filename, job_id) values ('x', E'a\\nb')")
	a.fails("22023", "1048576 bytes", "update mediafs.assets set job_id = $1", strings.Repeat("j", 1<<20))
	a.fails("42501", "can be set", "update mediafs.assets set size = 5")
	a.fails("42501", "owner", "update mediafs.assets set user_id = 'bob'")
	a.fails("22004", "null", "insert into mediafs.media_blobs (asset_id) select id from mediafs.assets")
	a.fails("42501", "'alice', not for the user 'bob'", "insert into mediafs.media_blobs (asset_id, user_id, media_data) select id, 'bob', 'x' from mediafs.assets")
	if got := state(); got != before {
		t.Errorf("got %s, want %s", got, before)
	}
	// A transaction that is rolled back leaves nothing either, and what names mean in it stays as it was.
	a.exec("create temporary table downloads (path text)")
	a.exec("begin; insert into mediafs.assets (path) values ('folder/new'); insert into downloads select path from mediafs.assets; rollback")
	if got := state(); got != before {
		t.Errorf("after a rollback: got %s, want %s", got, before)
	}
	isWhole(t, url)
}

func TestAnApplicationReachesWhatItsSessionMayAndNothingElse(t *testing.T) {
	h := newHousehold(t)
	before := h.fingerprint(t)
	alice, bob := newApplication(t, h.url, h.alice), newApplication(t, h.url, h.bob)
	id := alice.text("select id::text from mediafs.assets where filename = 'secret'")
	if got := alice.text(contentOf, id); got != "alice's own" {
		t.Errorf("alice reads %q", got)
	}
	for _, sql := range []string{
		"select count(*)::text from mediafs.assets where $1::uuid is not null",
		"select count(*)::text from mediafs.media_blobs where $1::uuid is not null",
		"select count(*)::text from mediafs.assets where id = $1",
		"select count(*)::text from mediafs.assets where ino = mediafs.asset_ino($1)",
		"with d as (delete from mediafs.assets where id = $1 returning 1) select count(*)::text from d",
		"with d as (update mediafs.assets set filename = 'bobs' where id = $1 returning 1) select count(*)::text from d",
		"with d as (update mediafs.media_blobs set media_data = 'bobs' where asset_id = $1 returning 1) select count(*)::text from d",
		"select count(*)::text from mediafs.find_assets(current_setting('mediafs.token'), null, '{}', false, null, null, null, 0, 9e18::bigint, 0, 9e18::bigint, true, '', 0, 0, '', '', 10) where $1::uuid is not null",
		"select count(*)::text from mediafs.find_assets(current_setting('mediafs.token'), '{alice}', '{}', false, null, null, null, 0, 9e18::bigint, 0, 9e18::bigint, true, '', 0, 0, '', '', 10) where $1::uuid is not null",
	} {
		if got := bob.text(sql, id); got != "0" {
			t.Errorf("bob: %s: got %s", sql, got)
		}
	}
	bob.fails("MF404", "there is no asset", "select mediafs.read_data($1, 0, 10)", id)
	bob.fails("MF404", "there is no asset", "select mediafs.append_data($1, 'bobs')", id)
	bob.fails("MF404", "there is no asset", "insert into mediafs.media_blobs (asset_id, media_data) values ($1, 'bobs')", id)
	bob.exec("select set_config('mediafs.drive', $1, false)", fmt.Sprint(h.aliceDrive))
	bob.fails("MF004", "may not use this drive", "select from mediafs.assets")
	bob.fails("MF004", "may not use this drive", "insert into mediafs.assets (filename) values ('planted')")
	nobody := newApplication(t, h.url, h.bob)
	for token, want := range map[string]string{"": "MF001", "mfs_forged": "MF001"} {
		nobody.exec("select set_config('mediafs.token', $1, false)", token)
		nobody.fails(want, "mediafs", "select from mediafs.assets")
		nobody.fails(want, "mediafs", "select from mediafs.media_blobs")
		nobody.fails(want, "mediafs", "insert into mediafs.assets (filename) values ('planted')")
		nobody.fails(want, "mediafs", "select mediafs.read_data($1, 0, 10)", id)
		nobody.fails(want, "mediafs", "select from mediafs.find_assets($1, null, '{}', false, null, null, null, 0, 1, 0, 1, true, '', 0, 0, '', '', 10)", token)
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}

	// The public drive is for an admin to change, and for everybody to read.
	admin := newApplication(t, h.url, signInAs(t, h.url, "ada", auth.RoleAdmin))
	admin.exec("select set_config('mediafs.drive', '1048575', false)")
	public := admin.text("insert into mediafs.assets (filename) values ('poster') returning id::text")
	admin.exec("insert into mediafs.media_blobs (asset_id, media_data) values ($1, 'everybody''s')", public)
	admin.fails("42501", "for everybody, not for the user", "insert into mediafs.assets (filename, user_id) values ('x', 'ada')")
	guest := newApplication(t, h.url, auth.Guest())
	if got := guest.text("select filename || ' ' || path || coalesce(user_id, ' of nobody') from mediafs.assets"); got != "poster poster of nobody" {
		t.Errorf("a guest finds %q", got)
	}
	if got := guest.text(contentOf, public); got != "everybody's" {
		t.Errorf("a guest reads %q", got)
	}
	guest.fails("25006", "guests", "insert into mediafs.assets (filename) values ('planted')")
	guest.fails("25006", "guests", "delete from mediafs.assets")
	guest.fails("25006", "guests", "select mediafs.append_data($1, 'x')", public)
}

// A mount that is alone answers from memory. Who changes its drive by SQL waits until it no longer does, and the next to come need not.
func TestAMountThatIsAloneIsToldOfWhatChangesBySQL(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	d := attach(t, url, alice, pgstore.Options{})
	a := newApplication(t, url, alice)
	know := func() {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !d.IsSole(t.Context()); {
			if time.Now().After(deadline) {
				t.Fatal("the mount does not find out that it is alone")
			}
		}
	}
	know()
	missing := func(name string) {
		t.Helper()
		if _, err := d.Lookup(t.Context(), blobstore.RootIno, name); !errors.Is(err, blobstore.ErrNotExist) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	missing("by sql")
	missing("rolled back")
	a.exec("begin")
	a.exec("insert into mediafs.assets (filename) values ('rolled back')")
	if d.IsSole(t.Context()) {
		t.Error("the mount believes that it is alone while a transaction changes its drive")
	}
	d.AskAgain()
	if d.IsSole(t.Context()) {
		t.Error("the mount finds that it is alone while a transaction changes its drive")
	}
	a.exec("rollback")
	missing("rolled back")
	a.exec("insert into mediafs.assets (filename) values ('by sql')")
	attr, err := d.Lookup(t.Context(), blobstore.RootIno, "by sql")
	if err != nil {
		t.Fatalf("what was stored by SQL is not there when that is done: %v", err)
	}
	for i := range 10 {
		a.exec("update mediafs.assets set filename = $2 where ino = $1", int64(attr.Ino), fmt.Sprint("by sql ", i))
		if got, err := d.Lookup(t.Context(), blobstore.RootIno, fmt.Sprint("by sql ", i)); err != nil || got.Ino != attr.Ino {
			t.Fatalf("renamed by SQL: got %v, %v", got.Ino, err)
		}
		d.AskAgain()
	}
	if d.IsSole(t.Context()) {
		t.Error("the mount believes that it is alone while its drive is changed by SQL")
	}
}
