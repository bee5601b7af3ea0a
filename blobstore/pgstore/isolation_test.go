package pgstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// tables are those with rows of drives, as the database has them, so that none is forgotten here.
func (h household) tables(t *testing.T) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
		where c.relnamespace = 'mediafs'::regnamespace and c.relkind in ('r', 'p') and a.attname = 'drive_id' and c.relname <> 'accounts' order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 11 {
		t.Fatalf("got tables %q, %v", tables, err)
	}
	return tables
}

// household is a store in which alice has some of everything, and bob a drive with nothing in it.
type household struct {
	url        string // a superuser's
	alice, bob auth.Session
	aliceDrive int32
}

func newHousehold(t *testing.T) household {
	t.Helper()
	h := household{url: newStore(t)}
	h.alice, h.bob = signIn(t, h.url, "alice"), signIn(t, h.url, "bob")
	ctx := t.Context()
	store, err := pgstore.Open(ctx, h.url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, session := range []auth.Session{h.alice, h.bob} {
		drive, err := store.Open(ctx, session)
		if err != nil {
			t.Fatal(err)
		}
		if session.User == "bob" {
			if err := drive.Close(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		h.aliceDrive = int32(drive.ID())
		file, attr, _, err := drive.Create(ctx, blobstore.RootIno, "secret", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, blobstore.OpenWrite)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(ctx, []byte("alice's own"), 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := drive.SetXattr(ctx, attr.Ino, "user.note", []byte("hers"), blobstore.XattrSet); err != nil {
			t.Fatal(err)
		}
		drive.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: attr.Ino, Path: "/secret", Count: 1, Result: blobstore.ResultOK})
		if _, err := drive.Make(ctx, blobstore.RootIno, "folder", blobstore.NewNode{Mode: unix.S_IFDIR | 0o700}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Close(), drive.Close(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	h.pin(t)
	return h
}

// pin puts rows of alice's into the tables that closing her drive empties.
func (h household) pin(t *testing.T) {
	t.Helper()
	err := h.exec(t, h.url, "", `
		insert into mediafs.mounts (drive_id, mount_id, host) values (`+fmt.Sprint(h.aliceDrive)+`, gen_random_uuid(), 'elsewhere');
		insert into mediafs.removed (drive_id, blob, mount_id) values (`+fmt.Sprint(h.aliceDrive)+`, 4711, gen_random_uuid());
		insert into mediafs.locks (drive_id, ino, mount_id, seq, low, high, pid, flock, exclusive)
			values (`+fmt.Sprint(h.aliceDrive)+`, 1, gen_random_uuid(), 1, '{0}', '{9}', '{1}', '{f}', '{t}');
		insert into mediafs.facts (drive_id, ino, created_ns, mime_type, sha256)
			values (`+fmt.Sprint(h.aliceDrive)+`, 16, 1, 'image/jpeg', sha256('alice''s own')) on conflict do nothing`)
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs statements with a login and, unless token is "", as the session of that token.
func (h household) exec(t *testing.T, url, token, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if token != "" {
		if _, err := conn.Exec(t.Context(), "select set_config('mediafs.token', $1, false)", token); err != nil {
			t.Fatal(err)
		}
	}
	_, err = conn.Exec(t.Context(), sql)
	return err
}

// count runs a query for one number.
func (h household) count(t *testing.T, url, token, sql string) (n int64, err error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if token != "" {
		if _, err := conn.Exec(t.Context(), "select set_config('mediafs.token', $1, false)", token); err != nil {
			t.Fatal(err)
		}
	}
	err = conn.QueryRow(t.Context(), sql).Scan(&n)
	return n, err
}

// fingerprint is a hash of all that alice has.
func (h household) fingerprint(t *testing.T) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var all string
	for _, table := range h.tables(t) {
		var hash string
		err := conn.QueryRow(t.Context(), fmt.Sprintf("select coalesce(md5(string_agg(r::text, '|' order by r::text)), 'none') from mediafs.%s r where drive_id = $1", table), h.aliceDrive).Scan(&hash)
		if err != nil {
			t.Fatal(err)
		}
		if hash == "none" {
			t.Fatalf("alice has nothing in %s: the test would show nothing", table)
		}
		all += hash
	}
	return all
}

// mountLogin is a login that may do what mounts may, and nothing else.
func (h household) mountLogin(t *testing.T) string {
	t.Helper()
	if err := h.exec(t, h.url, "", `do $$ begin create role mount_login login in role mediafs; exception when duplicate_object then null; end $$`); err != nil {
		t.Fatal(err)
	}
	return pgtest.Login(t, h.url, "mount_login")
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func TestTheMountingLoginWithoutATokenReadsAndChangesNothing(t *testing.T) {
	h := newHousehold(t)
	login := h.mountLogin(t)
	before := h.fingerprint(t)
	for _, table := range h.tables(t) {
		for _, token := range []string{"", "mfs_forged", "forged", "mfs_' or true --"} {
			if n, err := h.count(t, login, token, "select count(*) from mediafs."+table); code(err) != "MF001" {
				t.Errorf("select from %s with token %q: got %d, %v, want MF001", table, token, n, err)
			}
			if err := h.exec(t, login, token, "delete from mediafs."+table); code(err) != "MF001" && code(err) != "42501" {
				t.Errorf("delete from %s with token %q: got %v, want MF001", table, token, err)
			}
		}
	}
	for _, sql := range []string{"select * from mediafs.accounts", "select * from mediafs.app_session('x')", "set role mediafs_owner",
		"update mediafs.nodes set drive_id = 2", "truncate mediafs.nodes", "copy mediafs.chunks to stdout", "alter table mediafs.nodes disable row level security",
		"create table mediafs.mine ()", "create function mediafs.mine() returns int language sql as 'select 1'"} {
		if err := h.exec(t, login, "", sql); err == nil {
			t.Errorf("%s: got no error", sql)
		}
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
}

func TestATokenReachesNoOtherDriveEvenByItsNumbers(t *testing.T) {
	h := newHousehold(t)
	login := h.mountLogin(t)
	before := h.fingerprint(t)
	token := h.bob.Token.Reveal()
	d := fmt.Sprint(h.aliceDrive)
	for _, table := range h.tables(t) {
		for _, sql := range []string{
			"select count(*) from mediafs." + table + " where drive_id = " + d,
			"select count(*) from (select from mediafs." + table + " where drive_id = " + d + " offset 0) r",
			"select count(*) from mediafs." + table + " r where r.drive_id::text = '" + d + "'",
		} {
			if n, err := h.count(t, login, token, sql); n != 0 || err != nil {
				t.Errorf("%s: got %d, %v, want 0 rows", sql, n, err)
			}
		}
		err := h.exec(t, login, token, "do $$ begin delete from mediafs."+table+" where drive_id = "+d+"; if found then raise 'deleted'; end if; end $$")
		if err != nil && code(err) != "42501" {
			t.Errorf("delete from %s: got %v", table, err)
		}
	}
	for _, sql := range []string{
		"insert into mediafs.entries (drive_id, parent, name, position, ino) values (" + d + ", 1, 'planted', 99, 1)",
		"insert into mediafs.chunks (drive_id, blob, idx, data) values (" + d + ", 16, 0, 'planted')",
		"insert into mediafs.nodes (drive_id, ino, uid, gid, atime_ns, mtime_ns, ctime_ns, mode, nlink) values (" + d + ", 1, 0, 0, 0, 0, 0, 0, 0)",
		"insert into mediafs.xattrs (drive_id, ino, name, value) values (" + d + ", 1, 'user.planted', '')",
		"insert into mediafs.mounts (drive_id, mount_id, host) values (" + d + ", gen_random_uuid(), 'planted')",
		"insert into mediafs.removed (drive_id, blob, mount_id) values (" + d + ", 16, gen_random_uuid())",
		"insert into mediafs.usage (drive_id, slot) values (" + d + ", 0)",
		"select mediafs.make(" + d + ", 1, 'planted', 99, 33152, 0, 0, 0, null, 0)",
		"select mediafs.unlink(" + d + ", 1, 'folder', 0, gen_random_uuid(), '{}')",
		"select mediafs.rmdir(" + d + ", 1, 'folder', 0)",
		"select mediafs.rename(" + d + ", 1, 'folder', 1, 'planted', 0, 99, 0, gen_random_uuid(), '{}')",
		"select mediafs.set_attr(" + d + ", 1, 1, 511, 0, 0, 0, 0, 0, 0, 0, 65536, gen_random_uuid())",
		"select mediafs.put(" + d + ", 16, 16, '{0}', '{-1}', '{planted}', 7, 0, 0, 0)",
		"select mediafs.set_xattr(" + d + ", 1, 'user.planted', '', 0, true, 0)",
		"select mediafs.collect(" + d + ", '{16, 4711}', 1000)",
	} {
		if err := h.exec(t, login, token, sql); err == nil {
			t.Errorf("%s: got no error", sql)
		} else if c := code(err); c == "23505" {
			t.Errorf("%s: the error %v tells what is there", sql, err)
		}
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
	if n, err := h.count(t, login, h.alice.Token.Reveal(), "select count(*) from mediafs.entries where drive_id = "+d); n != 2 || err != nil {
		t.Errorf("alice herself: got %d entries, %v, want 2", n, err)
	}
}

func TestNothingTheCallerMakesTakesThePlaceOfWhatThePoliciesUse(t *testing.T) {
	h := newHousehold(t)
	login := h.mountLogin(t)
	for _, sql := range []string{
		"create temporary table accounts as select 'alice'::text user_id, 'user'::text role, sha256('mfs_forged'::bytea) token_hash",
		"create schema pg_temp_mine",
		"set search_path = pg_temp, public",
		"create function pg_temp.sha256(bytea) returns bytea language sql as $$ select pg_catalog.sha256('x'::bytea) $$",
		"create function pg_temp.session_drive() returns integer language sql as 'select " + fmt.Sprint(h.aliceDrive) + "'",
	} {
		conn, err := pgx.Connect(t.Context(), login)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Exec(t.Context(), sql) // where it is refused, so much the better
		_, _ = conn.Exec(t.Context(), "set search_path = pg_temp, public, pg_catalog; set mediafs.token = 'mfs_forged'")
		var n int64
		if err := conn.QueryRow(t.Context(), "select count(*) from mediafs.nodes").Scan(&n); code(err) != "MF001" {
			t.Errorf("after %s: got %d, %v, want MF001", sql, n, err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestASuperuserLoginStepsDown(t *testing.T) {
	h := newHousehold(t)
	store, err := pgstore.Open(t.Context(), h.url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drive, err := store.Open(t.Context(), h.bob)
	if err != nil {
		t.Fatal(err)
	}
	defer drive.Close(t.Context())
	// A superuser's query would find alice's folder; number 16 is her file, in the first block of every drive.
	for ino := blobstore.Ino(16); ino < 20; ino++ {
		if _, err := drive.Attr(t.Context(), ino); !errors.Is(err, blobstore.ErrNotExist) {
			t.Errorf("bob: attributes of node %d: got %v, want %v", ino, err, blobstore.ErrNotExist)
		}
	}
}

// To a login that is the mounting role and the worker, the policies of both would apply.
func TestALoginThatMayActAsTheWorkerStepsDown(t *testing.T) {
	h := newHousehold(t)
	if err := h.exec(t, h.url, "", `do $$ begin create role worker_login login in role mediafs, mediafs_worker; exception when duplicate_object then null; end $$`); err != nil {
		t.Fatal(err)
	}
	store, err := pgstore.Open(t.Context(), pgtest.Login(t, h.url, "worker_login"), pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drive, err := store.Open(t.Context(), h.bob)
	if err != nil {
		t.Fatal(err)
	}
	defer drive.Close(t.Context())
	if n, err := h.count(t, h.url, "", "select count(*) from pg_stat_activity where usename = 'worker_login' and datname = current_database()"); err != nil || n == 0 {
		t.Fatalf("got %d connections, %v", n, err)
	}
	if _, err := drive.Attr(t.Context(), blobstore.RootIno); err != nil {
		t.Errorf("bob's root: %v", err)
	}
	if _, err := drive.Attr(t.Context(), 16); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("alice's file: got %v, want %v", err, blobstore.ErrNotExist)
	}
}

func TestALoginWithoutTheRoleIsRefused(t *testing.T) {
	h := household{url: newStore(t)}
	if err := h.exec(t, h.url, "", `do $$ begin create role stranger login; exception when duplicate_object then null; end $$`); err != nil {
		t.Fatal(err)
	}
	_, err := pgstore.Open(t.Context(), pgtest.Login(t, h.url, "stranger"), pgstore.Options{})
	if !errors.Is(err, pgstore.ErrPrivilege) {
		t.Errorf("got %v, want %v", err, pgstore.ErrPrivilege)
	}
}
