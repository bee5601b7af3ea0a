package pgstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

func TestInitTwiceIsOnce(t *testing.T) {
	url := pgtest.New(t)
	first, err := pgstore.Init(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	second, err := pgstore.Init(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if first.Before != 0 || second.Before != first.After || second.After != first.After {
		t.Errorf("got %+v and then %+v", first, second)
	}
}

func TestADatabaseThatIsNoStoreOrOfAnotherVersionIsRefused(t *testing.T) {
	url := pgtest.New(t)
	if _, err := pgstore.Open(t.Context(), url, pgstore.Options{}); !errors.Is(err, pgstore.ErrNotInitialised) {
		t.Errorf("an empty database: got %v, want %v", err, pgstore.ErrNotInitialised)
	}
	report, err := pgstore.Init(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for version, want := range map[int32]error{report.After + 1: pgstore.ErrNewerSchema, report.After - 1: pgstore.ErrOlderSchema, 1: pgstore.ErrOlderSchema} {
		if _, err := conn.Exec(t.Context(), "update mediafs.schema_version set version = $1", version); err != nil {
			t.Fatal(err)
		}
		if _, err := pgstore.Open(t.Context(), url, pgstore.Options{}); !errors.Is(err, want) {
			t.Errorf("version %d: got %v, want %v", version, err, want)
		}
	}
}

// The first stores were of version 2.
func TestAStoreOfTheFirstVersionIsBroughtUpToDateWithAllThatIsInIt(t *testing.T) {
	url := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := pgstore.MigrateTo(t.Context(), conn, 2); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("written by an older program ", 100)
	for _, user := range []string{"alice", "bob"} {
		_, err := conn.Exec(t.Context(), `
			insert into mediafs.accounts (user_id, role, token_hash) values ('`+user+`', 'user', sha256('mfs_`+user+`'));
			select mediafs.open_drive('mfs_`+user+`', 65536, 1);
			set mediafs.token = 'mfs_`+user+`';
			set role mediafs;
			select mediafs.make(drive_id, 1, 'photo', 16, 33152, 0, 0, 0, null, 2),
				mediafs.put(drive_id, 16, 16, '{0}', '{-1}', array['`+content+user+`'::bytea], `+fmt.Sprint(len(content)+len(user))+`, 0, 3, 3),
				mediafs.set_xattr(drive_id, 16, 'user.of', '`+user+`', 0, false, 4) from mediafs.drives;
			update mediafs.drives set next_ino = 4096;
			reset role`)
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := pgstore.Init(t.Context(), url)
	if err != nil || report.Before != 2 || report.After <= 2 {
		t.Fatalf("got %+v, %v", report, err)
	}
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, user := range []auth.UserID{"alice", "bob"} {
		token, err := auth.ParseToken("mfs_" + string(user))
		if err != nil {
			t.Fatal(err)
		}
		session, err := store.Authenticate(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		drive, err := store.Open(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		attr, err := drive.Lookup(t.Context(), blobstore.RootIno, "photo")
		if err != nil {
			t.Fatal(err)
		}
		file, err := drive.Open(t.Context(), attr.Ino, blobstore.OpenRead)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(read(t, file, 1<<16, 0)), content+string(user); got != want {
			t.Errorf("%s: got %d bytes, want the %d that were there", user, len(got), len(want))
		}
		value, err := drive.GetXattr(t.Context(), attr.Ino, "user.of")
		if err != nil || string(value) != string(user) {
			t.Errorf("%s: got the attribute %q, %v", user, value, err)
		}
		made, ino := create(t, drive.(*pgstore.Drive), "new")
		write(t, made, []byte("by this program"), 0)
		if err := errors.Join(made.Flush(t.Context()), made.Close(), file.Close(), drive.Close(t.Context())); err != nil || ino == attr.Ino {
			t.Errorf("%s: got node %d, %v", user, ino, err)
		}
	}
	guest, err := store.Open(t.Context(), auth.Guest())
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestInitNeedsAnAdministrator(t *testing.T) {
	url := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "do $$ begin create role nobody_special login; exception when duplicate_object then null; end $$"); err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Init(t.Context(), pgtest.Login(t, url, "nobody_special")); !errors.Is(err, pgstore.ErrPrivilege) {
		t.Errorf("got %v, want %v", err, pgstore.ErrPrivilege)
	}
}

func TestAnAddressNeverShowsItsPassword(t *testing.T) {
	for _, url := range []string{"postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:hunter2@127.0.0.1:notaport/db", "postgres://u:hunter2@%zz/db"} {
		for name, open := range map[string]func() error{
			"open": func() error { _, err := pgstore.Open(t.Context(), url, pgstore.Options{}); return err },
			"init": func() error { _, err := pgstore.Init(t.Context(), url); return err },
		} {
			if err := open(); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s %s: got %v", name, url, err)
			}
		}
	}
}

func TestTheSessionsOfBetterAuthOpenDrives(t *testing.T) {
	url := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`create table "user" (id text primary key, name text, email text, role text, banned boolean, "banExpires" timestamptz);
		create table "session" (id text primary key, token text unique, "expiresAt" timestamptz, "userId" text references "user" (id));
		insert into "user" values ('u1', 'Anna', 'a@example.org', 'user', null, null), ('u2', 'Ben', 'b@example.org', 'admin', false, null);
		insert into "session" values ('s1', 'token1', now() + interval '1 hour', 'u1'), ('s2', 'token2', now() - interval '1 second', 'u2')`)
	report, err := pgstore.Init(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if report.Sessions == nil {
		t.Fatal("the application's tables were not found")
	}
	store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	authenticate := func(token string) (auth.Session, error) {
		parsed, err := auth.ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		return store.Authenticate(t.Context(), parsed)
	}
	session, err := authenticate("token1")
	if err != nil || session.User != "u1" || session.Role != auth.RoleUser || session.Expires.IsZero() {
		t.Fatalf("got %+v, %v", session, err)
	}
	if _, err := authenticate("token2"); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("an expired session: got %v, want %v", err, auth.ErrExpired)
	}
	if _, err := authenticate("token3"); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("an unknown token: got %v, want %v", err, auth.ErrInvalid)
	}
	drive, err := store.Open(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drive.Attr(t.Context(), blobstore.RootIno); err != nil {
		t.Error(err)
	}
	for sql, want := range map[string]error{
		`update "user" set banned = true where id = 'u1'`:                                       auth.ErrBanned,
		`update "session" set "expiresAt" = now() - interval '1 second' where token = 'token1'`: auth.ErrExpired,
		`delete from "session" where token = 'token1'`:                                          auth.ErrInvalid,
	} {
		exec("begin; " + sql)
		exec("commit")
		if _, err := drive.Attr(t.Context(), blobstore.RootIno); !errors.Is(err, want) {
			t.Errorf("after %s: got %v, want %v", sql, err, want)
		}
		exec(`update "user" set banned = false; insert into "session" values ('s1', 'token1', now() + interval '1 hour', 'u1')
			on conflict (id) do update set "expiresAt" = excluded."expiresAt"`)
	}
	exec(`delete from "session"`)
	if err := drive.Close(t.Context()); err != nil {
		t.Errorf("close after the session ended with nothing pending: got %v", err)
	}
}
