package betterauth

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Tables are the names of the application's tables and columns: Better Auth lets every one of them be changed.
type Tables struct {
	Schema  string
	Session SessionTable
	User    UserTable

	// SameIDs says that User.ID and Session.UserID have one type, so that they can be compared as they are, with the
	// help of an index. Otherwise they are compared as text.
	SameIDs bool
}

// SessionTable is the table of sessions and the columns of it that count.
type SessionTable struct {
	Table     string
	Token     string
	UserID    string
	ExpiresAt string // timestamp with time zone, or without and then in UTC
}

// UserTable is the table of users and the columns of it that count. The last three come with the admin plugin; those that
// are not there are "".
type UserTable struct {
	Table      string
	ID         string
	Role       string
	Banned     string
	BanExpires string // a timestamp, like SessionTable.ExpiresAt
}

// CamelCase are the names that Better Auth's own migrations make, and Prisma's.
func CamelCase() Tables {
	return Tables{
		Schema:  "public",
		Session: SessionTable{Table: "session", Token: "token", UserID: "userId", ExpiresAt: "expiresAt"},
		User:    UserTable{Table: "user", ID: "id", Role: "role", Banned: "banned", BanExpires: "banExpires"},
	}
}

// SnakeCase are the names that Drizzle's schemas have.
func SnakeCase() Tables {
	return Tables{
		Schema:  "public",
		Session: SessionTable{Table: "session", Token: "token", UserID: "user_id", ExpiresAt: "expires_at"},
		User:    UserTable{Table: "user", ID: "id", Role: "role", Banned: "banned", BanExpires: "ban_expires"},
	}
}

// plural is the same with the names of tables that the option usePlural gives.
func (t Tables) plural() Tables {
	t.Session.Table += "s"
	t.User.Table += "s"
	return t
}

// Querier is what Detect asks: a connection, a pool or a transaction of pgx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Detect looks for the application's tables in the schemas of the search path, in its order, and says whether they are there.
// Other schemas do not count: whoever may make one could put sessions of their own there. Only tables that the login may use
// are seen.
func Detect(ctx context.Context, q Querier) (Tables, bool, error) {
	candidates := []Tables{CamelCase(), SnakeCase(), CamelCase().plural(), SnakeCase().plural()}
	var names []string
	for _, t := range candidates {
		names = append(names, t.Session.Table, t.User.Table)
	}
	rows, err := q.Query(ctx, `
		SELECT table_schema::text, table_name::text, column_name::text, udt_schema || '.' || udt_name
		FROM information_schema.columns
		WHERE table_schema = ANY (current_schemas(false)) AND table_name = ANY ($1)
		ORDER BY array_position(current_schemas(false), table_schema::name)`, names)
	if err != nil {
		return Tables{}, false, fmt.Errorf("look for the tables of Better Auth: %w", err)
	}
	var schemas []string // in the order of the search path
	types := map[column]string{}
	var c column
	var kind string
	_, err = pgx.ForEachRow(rows, []any{&c.schema, &c.table, &c.name, &kind}, func() error {
		if len(schemas) == 0 || schemas[len(schemas)-1] != c.schema {
			schemas = append(schemas, c.schema)
		}
		types[c] = kind
		return nil
	})
	if err != nil {
		return Tables{}, false, fmt.Errorf("look for the tables of Better Auth: %w", err)
	}
	for _, schema := range schemas {
		for _, t := range candidates {
			t.Schema = schema
			if t.match(types) {
				return t, true, nil
			}
		}
	}
	return Tables{}, false, nil
}

// column is a column of a table.
type column struct{ schema, table, name string }

// match says whether the columns that must be there are, and drops those of the others that are not.
func (t *Tables) match(types map[column]string) bool {
	has := func(table, name string) bool { return types[column{t.Schema, table, name}] != "" }
	for _, name := range []string{t.Session.Token, t.Session.UserID, t.Session.ExpiresAt} {
		if !has(t.Session.Table, name) {
			return false
		}
	}
	if !has(t.User.Table, t.User.ID) {
		return false
	}
	for _, name := range []*string{&t.User.Role, &t.User.Banned, &t.User.BanExpires} {
		if !has(t.User.Table, *name) {
			*name = ""
		}
	}
	t.SameIDs = types[column{t.Schema, t.User.Table, t.User.ID}] == types[column{t.Schema, t.Session.Table, t.Session.UserID}]
	return true
}

// SessionSQL returns a SELECT that finds the session of the token p_token, expired or not. It is to be embedded in a function
// whose parameter is "p_token text", and needs no search path. It has no row for an unknown token, and otherwise one with
//
//	user_id text, role text ('admin' or 'user'), expires_at timestamptz, banned boolean
//
// none of them null unless expires_at is so in the table. The role is admin if the column, which may be a list with commas,
// has it. A ban counts until its end.
//
// Names are quoted as identifiers. They may contain any character, so whoever embeds the text between dollar quotes must
// choose a tag that it does not contain.
func (t Tables) SessionSQL() string {
	session := func(name string) string { return "s." + quote(name) }
	user := func(name string) string { return "u." + quote(name) }

	role := "'user'::text"
	if t.User.Role != "" {
		role = "CASE WHEN 'admin' = ANY (string_to_array(replace(" + user(t.User.Role) + "::text, ' ', ''), ',')) THEN 'admin' ELSE 'user' END"
	}
	banned := "false"
	if t.User.Banned != "" {
		banned = "coalesce(" + user(t.User.Banned) + ", false)"
		if t.User.BanExpires != "" {
			banned += " AND coalesce(" + instant(user(t.User.BanExpires)) + " > now(), true)"
		}
	}
	sameUser := user(t.User.ID) + "::text = " + session(t.Session.UserID) + "::text"
	if t.SameIDs {
		sameUser = user(t.User.ID) + " = " + session(t.Session.UserID)
	}
	return strings.Join([]string{
		"SELECT " + user(t.User.ID) + "::text AS user_id,",
		"       " + role + " AS role,",
		"       " + instant(session(t.Session.ExpiresAt)) + " AS expires_at,",
		"       " + banned + " AS banned",
		"FROM " + quote(t.Schema, t.Session.Table) + " AS s",
		"JOIN " + quote(t.Schema, t.User.Table) + " AS u ON " + sameUser,
		"WHERE " + session(t.Session.Token) + " = p_token",
	}, "\n")
}

// instant makes a timestamptz of a timestamp of either type. extract(epoch) takes one without a time zone to be in UTC, where a
// cast would take it to be in the time zone of the connection.
func instant(expression string) string {
	return "to_timestamp(extract(epoch FROM " + expression + "))"
}

func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }
