package pgstore_test

import (
	"errors"
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
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for version, want := range map[string]error{"version + 1": pgstore.ErrNewerSchema, "1": pgstore.ErrOlderSchema} {
		if _, err := conn.Exec(t.Context(), "update mediafs.schema_version set version = "+version); err != nil {
			t.Fatal(err)
		}
		if _, err := pgstore.Open(t.Context(), url, pgstore.Options{}); !errors.Is(err, want) {
			t.Errorf("version %s: got %v, want %v", version, err, want)
		}
		if _, err := conn.Exec(t.Context(), "update mediafs.schema_version set version = 2"); err != nil {
			t.Fatal(err)
		}
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
