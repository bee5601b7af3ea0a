package pgstore_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/auth/betterauth"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

func TestTheNamesOfTheApplicationsTablesAreRemembered(t *testing.T) {
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
	// Two applications: one with tables of its own naming, and one as Better Auth makes them. Both know the token.
	const token = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"
	exec(`create schema "it's \ the ""app"`)
	exec(`create table "it's \ the ""app".people (id uuid primary key default gen_random_uuid(), role text);
		create table "it's \ the ""app".logins (token text unique, expires_at timestamp, user_id uuid references "it's \ the ""app".people);
		with p as (insert into "it's \ the ""app".people (role) values ('admin') returning id)
		insert into "it's \ the ""app".logins select '` + token + `', now() at time zone 'UTC' + interval '1 hour', id from p;
		create table "user" (id text primary key);
		create table "session" (token text unique, "expiresAt" timestamptz, "userId" text);
		insert into "user" values ('other');
		insert into "session" values ('` + token + `', now() + interval '1 hour', 'other')`)
	names := betterauth.Tables{Schema: `it's \ the "app`}
	names.Session.Table, names.User.Table = "logins", "people"

	who := func() auth.Session {
		t.Helper()
		store, err := pgstore.Open(t.Context(), url, pgstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		secret, err := auth.ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		session, err := store.Authenticate(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	initWith := func(tables *betterauth.Tables, want string) {
		t.Helper()
		report, err := pgstore.InitWith(t.Context(), url, pgstore.InitOptions{Tables: tables})
		if err != nil || report.Sessions == nil || report.Sessions.Session.Table != want {
			t.Fatalf("got %+v, %v, want the table %s", report, err, want)
		}
	}
	initWith(nil, "session")
	if got := who(); got.User != "other" || got.Role != auth.RoleUser {
		t.Errorf("found: got %+v", got)
	}
	initWith(&names, "logins")
	named := who()
	if named.User == "other" || named.Role != auth.RoleAdmin {
		t.Errorf("named: got %+v", named)
	}
	initWith(nil, "logins")
	if got := who(); got.User != named.User {
		t.Errorf("remembered: got %+v, want %+v", got, named)
	}
	wrong := names
	wrong.User.Banned = "banned"
	if _, err := pgstore.InitWith(t.Context(), url, pgstore.InitOptions{Tables: &wrong}); !errors.Is(err, betterauth.ErrNoTables) {
		t.Errorf("a column that is not there: got %v, want %v", err, betterauth.ErrNoTables)
	}
	if got := who(); got.User != named.User {
		t.Errorf("after a wrong name: got %+v, want %+v", got, named)
	}
	initWith(&betterauth.Tables{}, "session")
	initWith(nil, "session")
	if got := who(); got.User != "other" {
		t.Errorf("forgotten: got %+v", got)
	}
}
