package betterauth_test

import (
	"errors"
	"strings"
	"testing"

	"mediafs/auth/betterauth"
)

func TestFindTakesTheNamesThatAreGivenAndFindsTheOthers(t *testing.T) {
	conn := connect(t)
	app := betterauth.SnakeCase()
	app.Schema, app.Session.Table, app.User.Table = "app", "logins", `Who "else"`
	app.User.Banned = "is_banned"
	app.SameIDs = true
	create(t, conn, app, kinds{"text", "text", "timestamp"})
	create(t, conn, betterauth.CamelCase(), kinds{"text", "text", "timestamptz"}) // in the search path, and not meant

	names, err := betterauth.ParseNames([]byte(
		`{"schema": "app", "session": {"table": "logins"}, "user": {"table": "Who \"else\"", "banned": "is_banned"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := betterauth.Find(t.Context(), conn, names); err != nil || got != app {
		t.Errorf("got %+v, %v, want %+v", got, err, app)
	}
	if got, ok, err := betterauth.Detect(t.Context(), conn); err != nil || !ok || got.Schema != "public" {
		t.Errorf("with no name: got %+v, %v, %v", got, ok, err)
	}
	run(t, conn, "SET search_path = app, public")
	names.Schema = ""
	if got, err := betterauth.Find(t.Context(), conn, names); err != nil || got != app {
		t.Errorf("without the schema: got %+v, %v, want %+v", got, err, app)
	}
	for text, missing := range map[string]string{
		`{"schema": "none", "session": {"table": "logins"}}`:                                                   "finds no tables",
		`{"session": {"table": "logins"}, "user": {"table": "Who \"else\"", "banned": "banned"}}`:              `no "app"."Who ""else"""."banned"`,
		`{"session": {"table": "logins"}, "user": {"table": "Who \"else\"", "role": "ROLE"}}`:                  `no "app"."Who ""else"""."ROLE"`,
		`{"session": {"table": "logins", "token": "toke"}, "user": {"table": "Who \"else\"", "id": "number"}}`: `no "app"."logins"."toke", "app"."Who ""else"""."number"`,
	} {
		names, err := betterauth.ParseNames([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := betterauth.Find(t.Context(), conn, names); !errors.Is(err, betterauth.ErrNoTables) || !strings.HasSuffix(err.Error(), missing) {
			t.Errorf("%s: got %+v, %v, want %q", text, got, err, missing)
		}
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "null", "{}", "[]", `"public"`, `{"schema": 1}`, `{"user": {"bannned": "x"}}`, `{"sessions": {}}`, `{"schema": "a"} {}`,
		`{"session": {"table": "a"`, `{"session": {}, "user": {}}`,
	} {
		if got, err := betterauth.ParseNames([]byte(text)); !errors.Is(err, betterauth.ErrNames) || got != (betterauth.Tables{}) {
			t.Errorf("%s: got %+v, %v, want %v", text, got, err, betterauth.ErrNames)
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add([]byte(`{"schema": "app", "session": {"table": "logins"}, "user": {"table": "people", "banExpires": "until"}}`))
	f.Add([]byte(`{"session": {"table": "\"\u0000"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := betterauth.ParseNames(data)
		if (err == nil) == (names == betterauth.Tables{}) || err != nil && !errors.Is(err, betterauth.ErrNames) {
			t.Errorf("got %+v, %v", names, err)
		}
	})
}
