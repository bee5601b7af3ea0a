package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// recordAs records that a user was denied a file of a strange name, and opened another.
func recordAs(t *testing.T, store, tokenFile string) {
	t.Helper()
	address, err := parseStore(store)
	if err != nil {
		t.Fatal(err)
	}
	opened, authenticator, err := address.open(t.Context(), budgets{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	text, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.ParseToken(string(text))
	if err != nil {
		t.Fatal(err)
	}
	session, err := authenticator.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	drive, err := opened.Open(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	event := blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Path: "/Reisen/photo.jpg", Count: 1, UID: 1000, Result: blobstore.ResultOK}
	drive.Record(event)
	event.Path, event.Result = "/secret\x1b[31m\n\xff", "EACCES"
	drive.Record(event)
	if err := drive.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// auditLines runs `mediafs audit` and returns its lines, each with single spaces.
func auditLines(t *testing.T, args ...string) []string {
	t.Helper()
	got := mediafs(t, append([]string{"audit"}, args...)...)
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("audit %q: got %+v", args, got)
	}
	var lines []string
	for line := range strings.Lines(got.stdout) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestAuditShowsWhoDidWhat(t *testing.T) {
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
			recordAs(t, store, anna)
			recordAs(t, store, bob)
			host, err := os.Hostname()
			if err != nil {
				t.Fatal(err)
			}

			if got := auditLines(t, "--store", store); len(got) != 9 || got[0] != "TIME USER ACTION COUNT RESULT HOST UID PATH" {
				t.Errorf("as the store's administrator: got\n%s\nwant a header and four lines for each", strings.Join(got, "\n"))
			}
			got := auditLines(t, "--store", store, "--token-file", anna)
			if len(got) != 5 || strings.Contains(strings.Join(got, "\n"), "bob") ||
				!strings.HasSuffix(got[2], " anna open 1 ok "+host+" 1000 /Reisen/photo.jpg") ||
				!strings.HasSuffix(got[3], ` anna open 1 EACCES `+host+` 1000 "/secret\x1b[31m\n\xff"`) {
				t.Errorf("as anna: got\n%s", strings.Join(got, "\n"))
			}
			for _, test := range []struct {
				args []string
				want int // lines with the header
			}{
				{[]string{"--user", "bob"}, 5},
				{[]string{"--denied"}, 3},
				{[]string{"--path", "/Reisen/"}, 3},
				{[]string{"--path", "Reisen/photo.jpg", "--user", "anna"}, 2},
				{[]string{"--since", "1h"}, 9},
				{[]string{"--since", time.Now().Add(time.Hour).Format(time.RFC3339)}, 1},
				{[]string{"--user", "carl"}, 1},
			} {
				if got := auditLines(t, append(test.args, "--store", store)...); len(got) != test.want || test.want == 1 && got[0] != "nothing is recorded" {
					t.Errorf("%q: got\n%s\nwant %d lines", test.args, strings.Join(got, "\n"), test.want)
				}
			}

			records := mediafs(t, "audit", "--store", store, "--token-file", bob, "--denied", "--json")
			var r blobstore.AuditRecord
			if err := json.Unmarshal([]byte(records.stdout), &r); err != nil || strings.Count(records.stdout, "\n") != 1 {
				t.Fatalf("got %+v, %v, want one object", records, err)
			}
			if r.User != "bob" || r.Drive != "bob" || r.Host != host || r.Path != "/secret\x1b[31m\n\xff" || r.Result != "EACCES" || r.Time.Location() != time.UTC {
				t.Errorf("got %+v", r)
			}
			if got := mediafs(t, "audit", "--store", store, "--user", "carl", "--json"); got != (outcome{}) {
				t.Errorf("nothing, as JSON: got %+v", got)
			}
		})
	}
}

func TestAuditWithoutTheRightSaysWhatToDo(t *testing.T) {
	isolate(t)
	database := pgtest.New(t)
	if got := mediafs(t, "init", "--store", database); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	execute(t, database, `do $$ begin create role audit_mount login in role mediafs; exception when duplicate_object then null; end $$`)
	login := pgtest.Login(t, database, "audit_mount")
	wantError(t, mediafs(t, "audit", "--store", login), exitStoreAway, "administrator's login", "--token-file")
	t.Setenv(tokenVariable, auth.NewToken().Reveal())
	wantError(t, mediafs(t, "audit", "--store", login), exitToken, "the token is not known")
	t.Setenv(tokenVariable, "")
	wantError(t, mediafs(t, "audit", "--store", t.TempDir()), exitStoreSchema, "not a store yet")
}

func TestSinceIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)
	for s, want := range map[string]time.Time{
		"90m":                       now.Add(-90 * time.Minute),
		"24h":                       now.Add(-24 * time.Hour),
		"7d":                        now.AddDate(0, 0, -7),
		"0s":                        now,
		"2026-11-01":                time.Date(2026, 11, 1, 0, 0, 0, 0, time.Local),
		"2026-11-01 08:30":          time.Date(2026, 11, 1, 8, 30, 0, 0, time.Local),
		"2026-11-01T08:30:05":       time.Date(2026, 11, 1, 8, 30, 5, 0, time.Local),
		"2026-11-01T08:30:05+02:00": time.Date(2026, 11, 1, 6, 30, 5, 0, time.UTC),
		"2026-11-01T08:30:05.5Z":    time.Date(2026, 11, 1, 8, 30, 5, 5e8, time.UTC),
	} {
		if got, err := parseTime("--since", s, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v, want %v", s, got, err, want)
		}
	}
	isolate(t)
	for _, s := range []string{"yesterday", "-1h", "d", "-1d", "2026-13-01", "1"} {
		wantError(t, mediafs(t, "audit", "--store", t.TempDir(), "--since="+s), exitUsage, "--since", s, "24h")
	}
}
