package betterauth_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"mediafs/auth/betterauth"
	"mediafs/blobstore/pgstore/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var (
	_ betterauth.Querier = (*pgx.Conn)(nil)
	_ betterauth.Querier = (*pgxpool.Pool)(nil)
	_ betterauth.Querier = (pgx.Tx)(nil)
)

// connect opens a fresh database in which every time zone but UTC would be noticed.
func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	run(t, conn, "SET TimeZone = 'America/New_York'")
	return conn
}

func run(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// kinds are the types that applications choose.
type kinds struct{ id, reference, time string }

// create makes the tables of an application. Columns that names lacks are left out.
func create(t *testing.T, conn *pgx.Conn, names betterauth.Tables, kinds kinds) {
	t.Helper()
	q := func(names ...string) string { return pgx.Identifier(names).Sanitize() }
	columns := []string{q(names.User.ID) + " " + kinds.id + " PRIMARY KEY", "name text"}
	for name, kind := range map[string]string{names.User.Role: "text", names.User.Banned: "boolean", names.User.BanExpires: kinds.time} {
		if name != "" {
			columns = append(columns, q(name)+" "+kind)
		}
	}
	run(t, conn, "CREATE SCHEMA IF NOT EXISTS "+q(names.Schema))
	run(t, conn, fmt.Sprintf("CREATE TABLE %s (%s)", q(names.Schema, names.User.Table), strings.Join(columns, ", ")))
	run(t, conn, fmt.Sprintf("CREATE TABLE %s (id serial PRIMARY KEY, %s %s NOT NULL, %s text NOT NULL UNIQUE, %s %s NOT NULL)",
		q(names.Schema, names.Session.Table), q(names.Session.UserID), kinds.reference,
		q(names.Session.Token), q(names.Session.ExpiresAt), kinds.time))
}

// insert adds a row and returns the value of one of its columns as text.
func insert(t *testing.T, conn *pgx.Conn, schema, table, returning string, values map[string]string) string {
	t.Helper()
	var names, expressions []string
	for name, expression := range values {
		names = append(names, pgx.Identifier{name}.Sanitize())
		expressions = append(expressions, expression)
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) RETURNING %s::text", pgx.Identifier{schema, table}.Sanitize(),
		strings.Join(names, ", "), strings.Join(expressions, ", "), pgx.Identifier{returning}.Sanitize())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// session is what SessionSQL says of a token.
type session struct {
	User, Role string
	Expires    time.Time
	Banned     bool
}

// check makes the function that a store would and asks it for a token.
func check(t *testing.T, conn *pgx.Conn, tables betterauth.Tables, token string) []session {
	t.Helper()
	run(t, conn, `CREATE OR REPLACE FUNCTION public.check_token(p_token text)
		RETURNS TABLE (user_id text, role text, expires_at timestamptz, banned boolean)
		LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS $check_token$ BEGIN RETURN QUERY `+tables.SessionSQL()+`; END $check_token$`)
	rows, err := conn.Query(t.Context(), "SELECT user_id, role, expires_at, banned FROM public.check_token($1)", token)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[session])
	if err != nil {
		t.Fatalf("%v\n%s", err, tables.SessionSQL())
	}
	return found
}

func TestSessionSQLFindsSessionsWhateverTheApplicationChose(t *testing.T) {
	namings := map[string]betterauth.Tables{"camelCase": betterauth.CamelCase(), "snake_case": betterauth.SnakeCase()}
	ids := map[string]kinds{
		"text":                 {id: "text DEFAULT md5(random()::text)", reference: "text"},
		"uuid":                 {id: "uuid DEFAULT gen_random_uuid()", reference: "uuid"},
		"serial":               {id: "serial", reference: "integer"},
		"uuid, kept as text":   {id: "uuid DEFAULT gen_random_uuid()", reference: "text"},
		"serial, kept as text": {id: "serial", reference: "text"},
	}
	for naming, want := range namings {
		for id, kinds := range ids {
			for _, kind := range []string{"timestamptz", "timestamp"} {
				kinds.time = kind
				want.SameIDs = kinds.reference != "text" || id == "text"
				t.Run(fmt.Sprintf("%s, %s, %s", naming, id, kind), func(t *testing.T) { sessionSQL(t, want, kinds) })
			}
		}
	}
}

func sessionSQL(t *testing.T, want betterauth.Tables, kinds kinds) {
	conn := connect(t)
	create(t, conn, want, kinds)
	got, ok, err := betterauth.Detect(t.Context(), conn)
	if err != nil || !ok || got != want {
		t.Fatalf("got %+v, %v, %v, want %+v", got, ok, err, want)
	}

	// As the driver of the application writes them: in UTC if the column has no time zone.
	in := func(interval string) string {
		if kinds.time == "timestamp" {
			return "now() AT TIME ZONE 'UTC' + interval '" + interval + "'"
		}
		return "now() + interval '" + interval + "'"
	}
	role, banned, until := want.User.Role, want.User.Banned, want.User.BanExpires
	users := []struct {
		token  string
		user   map[string]string
		ends   string
		role   string
		banned bool
	}{
		{"plain", map[string]string{}, "7 days", "user", false},
		{"user", map[string]string{role: "'user'", banned: "false"}, "7 days", "user", false},
		{"admin", map[string]string{role: "'admin'"}, "7 days", "admin", false},
		{"editor and admin", map[string]string{role: "'editor, admin'"}, "7 days", "admin", false},
		{"no admin", map[string]string{role: "'administrator,Admin,non-admin'"}, "7 days", "user", false},
		{"banned", map[string]string{banned: "true"}, "7 days", "user", true},
		{"banned for two hours", map[string]string{banned: "true", until: in("2 hours")}, "7 days", "user", true},
		{"banned until two hours ago", map[string]string{banned: "true", until: in("-2 hours")}, "7 days", "user", false},
		{"pardoned", map[string]string{banned: "false", until: in("2 hours")}, "7 days", "user", false},
		{"expired", map[string]string{}, "-1 hour", "user", false},
	}
	ids := map[string]string{}
	for _, u := range users {
		u.user["name"] = "'" + u.token + "'"
		ids[u.token] = insert(t, conn, want.Schema, want.User.Table, want.User.ID, u.user)
		insert(t, conn, want.Schema, want.Session.Table, want.Session.Token, map[string]string{
			want.Session.UserID: "'" + ids[u.token] + "'", want.Session.Token: "'" + u.token + "'", want.Session.ExpiresAt: in(u.ends),
		})
	}
	for _, u := range users {
		var expires time.Time
		if err := conn.QueryRow(t.Context(), "SELECT now() + $1::text::interval", u.ends).Scan(&expires); err != nil {
			t.Fatal(err)
		}
		found := check(t, conn, got, u.token)
		if len(found) != 1 {
			t.Fatalf("%s: got %d sessions, want one", u.token, len(found))
		}
		s := found[0]
		if s.User != ids[u.token] || s.Role != u.role || s.Banned != u.banned {
			t.Errorf("%s: got %+v, want user %s, role %s, banned %v", u.token, s, ids[u.token], u.role, u.banned)
		}
		// The rows were made some moments ago. A wrong time zone would be hours off.
		if off := expires.Sub(s.Expires); off < 0 || off > 10*time.Minute {
			t.Errorf("%s: got the end %v, want %v", u.token, s.Expires, expires)
		}
	}
	for _, token := range []string{"", "unknown", "PLAIN", "plain ", "%", "' OR true --"} {
		if found := check(t, conn, got, token); len(found) != 0 {
			t.Errorf("token %q: got %+v, want none", token, found)
		}
	}
}

func TestDetectFindsTablesWithoutTheAdminPlugin(t *testing.T) {
	conn := connect(t)
	want := betterauth.CamelCase()
	want.User.Role, want.User.Banned, want.User.BanExpires = "", "", ""
	want.SameIDs = true
	create(t, conn, want, kinds{"text", "text", "timestamptz"})
	got, ok, err := betterauth.Detect(t.Context(), conn)
	if err != nil || !ok || got != want {
		t.Fatalf("got %+v, %v, %v, want %+v", got, ok, err, want)
	}
	run(t, conn, `INSERT INTO "user" (id) VALUES ('anna')`)
	run(t, conn, `INSERT INTO session ("userId", token, "expiresAt") VALUES ('anna', 'a', now())`)
	found := check(t, conn, got, "a")
	if len(found) != 1 || found[0].User != "anna" || found[0].Role != "user" || found[0].Banned {
		t.Errorf("got %+v, want the user anna", found)
	}
}

func TestDetectFindsPluralTablesAndFollowsTheSearchPath(t *testing.T) {
	conn := connect(t)
	plural := betterauth.SnakeCase()
	plural.Schema, plural.Session.Table, plural.User.Table, plural.SameIDs = "app", "sessions", "users", true
	create(t, conn, plural, kinds{"uuid", "uuid", "timestamptz"})

	if got, ok, err := betterauth.Detect(t.Context(), conn); err != nil || ok {
		t.Errorf("outside the search path: got %+v, %v, %v, want nothing", got, ok, err)
	}
	run(t, conn, "SET search_path = app, public")
	if got, ok, err := betterauth.Detect(t.Context(), conn); err != nil || !ok || got != plural {
		t.Errorf("got %+v, %v, %v, want %+v", got, ok, err, plural)
	}
	public := betterauth.CamelCase()
	public.SameIDs = true
	create(t, conn, public, kinds{"text", "text", "timestamp"})
	if got, ok, err := betterauth.Detect(t.Context(), conn); err != nil || !ok || got != plural {
		t.Errorf("the first schema comes first: got %+v, %v, %v, want %+v", got, ok, err, plural)
	}
	run(t, conn, "SET search_path = public, app")
	if got, ok, err := betterauth.Detect(t.Context(), conn); err != nil || !ok || got != public {
		t.Errorf("after a change of the path: got %+v, %v, %v, want %+v", got, ok, err, public)
	}
}

func TestDetectWorksInATransactionAndFindsNothingInOtherTables(t *testing.T) {
	conn := connect(t)
	for _, sql := range []string{
		"CREATE TABLE session (sid text PRIMARY KEY, sess json, expire timestamp)",        // of another library
		`CREATE TABLE "user" (id text PRIMARY KEY, name text)`,                            // half of ours
		`CREATE TABLE sessions (token text, "userId" text, expires_at timestamptz)`,       // of both namings
		`CREATE TABLE users (uid text PRIMARY KEY, name text, role text, banned boolean)`, // without id
	} {
		run(t, conn, sql)
	}
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		got, ok, err := betterauth.Detect(t.Context(), tx)
		if ok {
			t.Errorf("got %+v, want nothing", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDetectSaysWhenItCannotAsk(t *testing.T) {
	conn := connect(t)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := betterauth.Detect(t.Context(), conn); err == nil || ok {
		t.Errorf("got %+v, %v, want an error", got, ok)
	}
}

func TestSessionSQLQuotesHostileNames(t *testing.T) {
	conn := connect(t)
	run(t, conn, "CREATE TABLE victim ()")
	hostile := betterauth.Tables{
		Schema:  `a"b.c`,
		Session: betterauth.SessionTable{Table: `s"; DROP TABLE victim; --`, Token: `to'ken`, UserID: `user "id"`, ExpiresAt: `expires$$at`},
		User:    betterauth.UserTable{Table: `Us er`, ID: `i.d`, Role: `ro\le`, Banned: `ban/*ned`, BanExpires: `"`},
		SameIDs: true,
	}
	create(t, conn, hostile, kinds{"text", "text", "timestamptz"})
	q := func(names ...string) string { return pgx.Identifier(names).Sanitize() }
	run(t, conn, fmt.Sprintf("INSERT INTO %s (%s, %s) VALUES ('anna', 'admin')",
		q(hostile.Schema, hostile.User.Table), q(hostile.User.ID), q(hostile.User.Role)))
	run(t, conn, fmt.Sprintf("INSERT INTO %s (%s, %s, %s) VALUES ('anna', 'a', now())",
		q(hostile.Schema, hostile.Session.Table), q(hostile.Session.UserID), q(hostile.Session.Token), q(hostile.Session.ExpiresAt)))
	found := check(t, conn, hostile, "a")
	if len(found) != 1 || found[0].User != "anna" || found[0].Role != "admin" {
		t.Errorf("got %+v, want the admin anna", found)
	}
	run(t, conn, "SELECT FROM victim")
}

// With ids of one type both lookups go through an index, however many users there are.
func TestSessionSQLUsesTheIndexes(t *testing.T) {
	conn := connect(t)
	create(t, conn, betterauth.CamelCase(), kinds{"uuid DEFAULT gen_random_uuid()", "uuid", "timestamptz"})
	tables, _, err := betterauth.Detect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	run(t, conn, "SET enable_seqscan = off")
	rows, err := conn.Query(t.Context(), "EXPLAIN (FORMAT TEXT) "+strings.ReplaceAll(tables.SessionSQL(), "p_token", "'a'::text"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	if strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "session_token_key") || !strings.Contains(plan, "user_pkey") {
		t.Errorf("got the plan\n%s\nwant both tables read by index", plan)
	}
}
