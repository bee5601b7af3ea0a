package betterauth

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Tables are the names of the application's tables and columns: Better Auth lets every one of them be changed.
type Tables struct {
	Schema  string       `json:"schema,omitempty"`
	Session SessionTable `json:"session,omitzero"`
	User    UserTable    `json:"user,omitzero"`

	// SameIDs says that User.ID and Session.UserID have one type, so that they can be compared as they are, with the
	// help of an index. Otherwise they are compared as text.
	SameIDs bool `json:"-"`
}

// SessionTable is the table of sessions and the columns of it that count.
type SessionTable struct {
	Table     string `json:"table,omitempty"`
	Token     string `json:"token,omitempty"`
	UserID    string `json:"userId,omitempty"`
	ExpiresAt string `json:"expiresAt,omitempty"` // timestamp with time zone, or without and then in UTC
}

// UserTable is the table of users and the columns of it that count. The last three come with the admin plugin; those that
// are not there are "".
type UserTable struct {
	Table      string `json:"table,omitempty"`
	ID         string `json:"id,omitempty"`
	Role       string `json:"role,omitempty"`
	Banned     string `json:"banned,omitempty"`
	BanExpires string `json:"banExpires,omitempty"` // a timestamp, like SessionTable.ExpiresAt
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

// SessionSQL returns a SELECT that finds the session of the token p_token, expired or not. It is to be embedded in a function
// whose parameter is "p_token text", and names the schema of everything, so it needs no search path and no caller's can lead it astray. It has no row for an unknown token, and otherwise one with
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

	role := "'user'::pg_catalog.text"
	if t.User.Role != "" {
		role = "CASE WHEN 'admin' OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array(pg_catalog.replace(" + user(t.User.Role) + "::pg_catalog.text, ' ', ''), ',')) THEN 'admin' ELSE 'user' END"
	}
	banned := "false"
	if t.User.Banned != "" {
		banned = "coalesce(" + user(t.User.Banned) + ", false)"
		if t.User.BanExpires != "" {
			banned += " AND coalesce(" + instant(user(t.User.BanExpires)) + " OPERATOR(pg_catalog.>) pg_catalog.now(), true)"
		}
	}
	sameUser := user(t.User.ID) + "::pg_catalog.text OPERATOR(pg_catalog.=) " + session(t.Session.UserID) + "::pg_catalog.text"
	if t.SameIDs {
		sameUser = user(t.User.ID) + " OPERATOR(pg_catalog.=) " + session(t.Session.UserID)
	}
	return strings.Join([]string{
		"SELECT " + user(t.User.ID) + "::pg_catalog.text AS user_id,",
		"       " + role + " AS role,",
		"       " + instant(session(t.Session.ExpiresAt)) + " AS expires_at,",
		"       " + banned + " AS banned",
		"FROM " + quote(t.Schema, t.Session.Table) + " AS s",
		"JOIN " + quote(t.Schema, t.User.Table) + " AS u ON " + sameUser,
		"WHERE " + session(t.Session.Token) + " OPERATOR(pg_catalog.=) p_token",
	}, "\n")
}

// instant makes a timestamptz of a timestamp of either type. extract(epoch) takes one without a time zone to be in UTC, where a
// cast would take it to be in the time zone of the connection.
func instant(expression string) string {
	return "pg_catalog.to_timestamp(extract(epoch FROM " + expression + "))"
}

func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }
