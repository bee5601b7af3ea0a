package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore/pgstore/pgtest"
)

// execute runs SQL as the superuser.
func execute(t *testing.T, database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// withPassword is the address of a database with a password, which this server does not ask for.
func withPassword(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("password", "hunter2")
	u.RawQuery = query.Encode()
	return u.String()
}

func TestUsersOfADatabase(t *testing.T) {
	isolate(t)
	database := pgtest.New(t)
	t.Setenv(storeVariable, withPassword(t, database))

	wantError(t, mediafs(t, "user", "list"), exitStoreSchema, "mediafs init", "administrator")
	for _, want := range []string{"is ready (version", "was ready already (version"} {
		got := mediafs(t, "init")
		if got.code != exitOK || !strings.Contains(got.stdout, want) || !strings.Contains(got.stdout, "mediafs user add --store") {
			t.Fatalf("got %+v, want %q", got, want)
		}
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("got %+v: it shows the password", got)
		}
	}

	anna := mediafs(t, "user", "add", "anna", "--role", "admin")
	if anna.code != exitOK || !strings.HasPrefix(anna.stdout, auth.TokenPrefix) || anna.stderr != "" {
		t.Fatalf("got %+v", anna)
	}
	wantError(t, mediafs(t, "user", "add", "anna"), exitUser, `user "anna"`, "exists already")
	if got := mediafs(t, "user", "add", "bob"); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	if got := mediafs(t, "user", "token", "anna"); got.code != exitOK || got.stdout == anna.stdout {
		t.Errorf("got %+v, want a new token", got)
	}
	t.Setenv(tokenVariable, anna.stdout)
	wantError(t, mediafs(t, "mount", t.TempDir()), exitToken, "the token is not known")
	if got := mediafs(t, "user", "remove", "bob"); got != (outcome{}) {
		t.Errorf("got %+v, want silence", got)
	}
	wantError(t, mediafs(t, "user", "remove", "bob"), exitUser, `user "bob"`, "no such user")
	got := mediafs(t, "user", "list")
	if got.code != exitOK || strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stdout, "\nanna  admin  ") {
		t.Errorf("got %+v, want anna alone", got)
	}
}

func TestADatabaseThatIsNoStoreOrAwayHasItsExitCode(t *testing.T) {
	isolate(t)
	database := withPassword(t, pgtest.New(t))
	mountpoint := t.TempDir()
	mount := func() outcome {
		t.Setenv(storeVariable, database)
		t.Setenv(tokenVariable, auth.NewToken().Reveal())
		got := mediafs(t, "mount", mountpoint)
		if strings.Contains(got.stderr, "hunter2") {
			t.Errorf("got %q: it shows the password", got.stderr)
		}
		return got
	}
	wantError(t, mount(), exitStoreSchema, "is no store yet")
	t.Setenv(storeVariable, database)
	if got := mediafs(t, "init"); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	wantError(t, mount(), exitToken, "the token is not known")
	execute(t, database, "update mediafs.schema_version set version = version + 1")
	wantError(t, mount(), exitStoreSchema, "newer version of mediafs: update this program")
	execute(t, database, "update mediafs.schema_version set version = 0")
	wantError(t, mount(), exitStoreSchema, "older version", "mediafs init")

	database = "postgres://anna:hunter2@127.0.0.1:1/media"
	wantError(t, mount(), exitStoreAway, "postgres://anna@127.0.0.1:1/media", "can't be reached")
	database = "postgres://anna:hunter2@127.0.0.1/media?sslmode=perhaps"
	wantError(t, mount(), exitStoreAddress, "postgres://")
}

func TestAnApplicationsSessionsAreReported(t *testing.T) {
	isolate(t)
	database := pgtest.New(t)
	execute(t, database, `
		CREATE TABLE "user" (id text PRIMARY KEY, name text);
		CREATE TABLE session (id text PRIMARY KEY, token text UNIQUE, "userId" text, "expiresAt" timestamptz)`)
	got := mediafs(t, "init", "--store", database)
	if got.code != exitOK || !strings.Contains(got.stdout, "sessions of the application are read from session and user in the schema public") {
		t.Errorf("got %+v", got)
	}
}
