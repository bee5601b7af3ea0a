package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/blobstore/pgstore/pgtest"
)

func TestInitReadsTheTablesThatAreNamed(t *testing.T) {
	isolate(t)
	database := pgtest.New(t)
	execute(t, database, `create table people (id text primary key, blocked boolean);
		create table logins (token text unique, expires_at timestamptz, user_id text)`)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv(storeVariable, database)

	wantError(t, mediafs(t, "init", "--auth-tables", filepath.Join(dir, "missing")), exitUsage, "names of tables", "no such file")
	wantError(t, mediafs(t, "init", "--auth-tables", write("wrong", `{"user": {"bannned": "x"}}`)), exitUsage, "wrong", `"bannned"`)
	wantError(t, mediafs(t, "init", "--store", dir, "--auth-tables", "detect"), exitUsage, "for databases")
	wantError(t, mediafs(t, "init", "--auth-tables", write("absent", `{"user": {"table": "persons"}}`)), exitStoreSchema,
		"finds no", "--auth-tables FILE")
	wantError(t, mediafs(t, "user", "list"), exitStoreSchema, "no store yet")
	names := write("names", `{"session": {"table": "logins"}, "user": {"table": "people", "banned": "blocked"}}`)
	for _, args := range [][]string{{"--auth-tables", names}, nil} {
		got := mediafs(t, append([]string{"init"}, args...)...)
		if got.code != exitOK || !strings.Contains(got.stdout, "read from logins and people in the schema public; it has no roles, so nobody is an admin\n") {
			t.Errorf("%q: got %+v", args, got)
		}
	}
	wantError(t, mediafs(t, "init", "--auth-tables", "detect"), exitStoreSchema, "finds no tables")
}
