package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore/pgstore/pgtest"
)

func TestQuotaShowsAndSetsWhatDrivesMayHold(t *testing.T) {
	for name, newStore := range map[string]func(t *testing.T) string{
		"folders": newStore,
		"Postgres": func(t *testing.T) string {
			database := pgtest.New(t)
			if got := mediafs(t, "init", "--store", database); got.code != exitOK {
				t.Fatal(got.stderr)
			}
			return database
		},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			store := newStore(t)
			anna, bob := newUser(t, store, "anna"), newUser(t, store, "bob")
			recordAs(t, store, anna) // makes their drives
			recordAs(t, store, bob)
			ada := filepath.Join(t.TempDir(), "ada.token")
			if err := os.WriteFile(ada, []byte(mediafs(t, "user", "add", "--store", store, "ada", "--role", "admin").stdout), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := func(want string, args ...string) {
				t.Helper()
				got := mediafs(t, append([]string{"quota", "--store", store}, args...)...)
				var rows []string
				for line := range strings.Lines(got.stdout) {
					rows = append(rows, strings.Join(strings.Fields(line), " "))
				}
				if text := strings.Join(rows, "\n"); got.code != exitOK || got.stderr != "" || text != want {
					t.Errorf("quota %q: got %+v\nwant\n%s", args, got, want)
				}
			}
			lines("", "set", "anna", "--bytes", "10G", "--files", "100000")
			lines("", "--token-file", ada, "set", "bob", "--files", "7")
			lines("", "set", "bob", "--bytes=1M")
			lines("DRIVE USED LIMIT FILES LIMIT\nanna 0 B 10.0 GiB 0 100000\nbob 0 B 1.0 MiB 0 7\npublic 0 B none 0 none")
			lines("", "--bytes", "none", "set", "bob")
			lines("DRIVE USED LIMIT FILES LIMIT\nanna 0 B 10.0 GiB 0 100000\nbob 0 B none 0 7\npublic 0 B none 0 none", "--token-file", ada)
			lines("DRIVE USED LIMIT FILES LIMIT\nbob 0 B none 0 7", "--token-file", bob)
			got := mediafs(t, "quota", "--store", store, "--token-file", bob, "--json")
			var line map[string]any
			if err := json.Unmarshal([]byte(got.stdout), &line); err != nil || line["drive"] != "bob" || line["max_bytes"] != nil || line["max_files"] != 7.0 || line["files"] != 0.0 {
				t.Errorf("got %+v, %v", got, err)
			}

			wantError(t, mediafs(t, "quota", "--store", store, "--token-file", anna, "set", "anna", "--bytes", "none"), exitStoreAway, "token of an admin")
			wantError(t, mediafs(t, "quota", "--store", store, "set", "carl", "--bytes", "1G"), exitStoreAway, `"carl"`, "no such drive")
			for _, wrong := range []struct {
				args []string
				says string
			}{
				{[]string{"set", "anna"}, "no limit is given"},
				{[]string{"set", "--bytes", "1G"}, "DRIVE is missing"},
				{[]string{"set", "anna", "bob", "--bytes", "1G"}, "3 arguments"},
				{[]string{"--bytes", "1G"}, "set DRIVE"},
				{[]string{"remove", "anna"}, `"remove"`},
				{[]string{"set", "anna", "--bytes", "much"}, "no size"},
				{[]string{"set", "anna", "--bytes", "0"}, "write none"},
				{[]string{"set", "anna", "--files", "-1"}, "write none"},
				{[]string{"set", "anna", "--files", "10K"}, "no number"},
			} {
				wantError(t, mediafs(t, append([]string{"quota", "--store", store}, wrong.args...)...), exitUsage, wrong.says)
			}
			lines("DRIVE USED LIMIT FILES LIMIT\nanna 0 B 10.0 GiB 0 100000", "--token-file", anna)
		})
	}
}

func TestQuotaWithoutTheRightSaysWhatToDo(t *testing.T) {
	isolate(t)
	database := pgtest.New(t)
	if got := mediafs(t, "init", "--store", database); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	execute(t, database, `do $$ begin create role quota_mount login in role mediafs; exception when duplicate_object then null; end $$`)
	login := pgtest.Login(t, database, "quota_mount")
	wantError(t, mediafs(t, "quota", "--store", login), exitStoreAway, "administrator's login", "--token-file")
	wantError(t, mediafs(t, "quota", "--store", login, "set", "anna", "--files", "1"), exitStoreAway, "administrator's login", "--token-file")
	t.Setenv(tokenVariable, auth.NewToken().Reveal())
	wantError(t, mediafs(t, "quota", "--store", login), exitToken)
}
