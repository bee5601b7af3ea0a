package betterauth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// What can be wrong with names that somebody gives.
var (
	ErrNames    = errors.New("not the names of Better Auth's tables")
	ErrNoTables = errors.New("the application's tables are not as named")
)

// ParseNames reads the names of an application's tables as somebody writes them down, in JSON. Every one may be left out, and
// is then found by Find:
//
//	{
//	  "schema": "public",
//	  "session": {"table": "session", "token": "token", "userId": "userId", "expiresAt": "expiresAt"},
//	  "user": {"table": "user", "id": "id", "role": "role", "banned": "banned", "banExpires": "banExpires"}
//	}
//
// A name that is not one of these gives ErrNames: a mistake must not turn off that bans count.
func ParseNames(data []byte) (Tables, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var t Tables
	if err := decoder.Decode(&t); err != nil {
		return Tables{}, fmt.Errorf("%w: %w", ErrNames, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Tables{}, fmt.Errorf("%w: there is more after them", ErrNames)
	}
	if t == (Tables{}) {
		return Tables{}, fmt.Errorf("%w: there is no name among them", ErrNames)
	}
	return t, nil
}

// with gives t the names of another that are not "".
func (t Tables) with(names Tables) Tables {
	return Tables{
		Schema: cmp.Or(names.Schema, t.Schema),
		Session: SessionTable{
			Table:     cmp.Or(names.Session.Table, t.Session.Table),
			Token:     cmp.Or(names.Session.Token, t.Session.Token),
			UserID:    cmp.Or(names.Session.UserID, t.Session.UserID),
			ExpiresAt: cmp.Or(names.Session.ExpiresAt, t.Session.ExpiresAt),
		},
		User: UserTable{
			Table:      cmp.Or(names.User.Table, t.User.Table),
			ID:         cmp.Or(names.User.ID, t.User.ID),
			Role:       cmp.Or(names.User.Role, t.User.Role),
			Banned:     cmp.Or(names.User.Banned, t.User.Banned),
			BanExpires: cmp.Or(names.User.BanExpires, t.User.BanExpires),
		},
	}
}

// Querier is what Detect and Find ask: a connection, a pool or a transaction of pgx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Detect looks for the application's tables in the schemas of the search path, in its order, and says whether they are there.
// Other schemas do not count: whoever may make one could put sessions of their own there. Only tables that the login may use
// are seen.
func Detect(ctx context.Context, q Querier) (Tables, bool, error) {
	found, err := Find(ctx, q, Tables{})
	if errors.Is(err, ErrNoTables) {
		return Tables{}, false, nil
	}
	return found, err == nil, err
}

// Find looks for the application's tables as Detect does, but with the names that are given; and in that schema, if one is.
// Every name that is given must be there. Otherwise ErrNoTables, which says what is missing.
func Find(ctx context.Context, q Querier, names Tables) (Tables, error) {
	candidates := []Tables{CamelCase(), SnakeCase(), CamelCase().plural(), SnakeCase().plural()}
	var tables []string
	for i, c := range candidates {
		candidates[i] = c.with(names)
		tables = append(tables, candidates[i].Session.Table, candidates[i].User.Table)
	}
	rows, err := q.Query(ctx, `
		SELECT table_schema::text, table_name::text, column_name::text, udt_schema || '.' || udt_name
		FROM information_schema.columns
		WHERE table_schema = ANY (CASE $2 WHEN '' THEN current_schemas(false) ELSE ARRAY[$2]::name[] END) AND table_name = ANY ($1)
		ORDER BY array_position(current_schemas(false), table_schema::name)`, tables, names.Schema)
	if err != nil {
		return Tables{}, fmt.Errorf("look for the tables of Better Auth: %w", err)
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
		return Tables{}, fmt.Errorf("look for the tables of Better Auth: %w", err)
	}
	var missing []string // of the candidate that lacks least
	for _, schema := range schemas {
		for _, t := range candidates {
			t.Schema = schema
			lacks := t.match(types, names)
			if len(lacks) == 0 {
				return t, nil
			}
			if missing == nil || len(lacks) < len(missing) {
				missing = lacks
			}
		}
	}
	if missing == nil {
		missing = []string{"tables"}
	}
	return Tables{}, fmt.Errorf("%w: this login finds no %s", ErrNoTables, strings.Join(missing, ", "))
}

// column is a column of a table.
type column struct{ schema, table, name string }

// match returns which columns that must be there are not, and drops those of the others that are not.
func (t *Tables) match(types map[column]string, names Tables) (missing []string) {
	has := func(table, name string) bool { return types[column{t.Schema, table, name}] != "" }
	need := func(table string, columns ...string) {
		for _, name := range columns {
			if name != "" && !has(table, name) {
				missing = append(missing, quote(t.Schema, table, name))
			}
		}
	}
	need(t.Session.Table, t.Session.Token, t.Session.UserID, t.Session.ExpiresAt)
	need(t.User.Table, t.User.ID, names.User.Role, names.User.Banned, names.User.BanExpires)
	for _, name := range []*string{&t.User.Role, &t.User.Banned, &t.User.BanExpires} {
		if !has(t.User.Table, *name) {
			*name = ""
		}
	}
	t.SameIDs = types[column{t.Schema, t.User.Table, t.User.ID}] == types[column{t.Schema, t.Session.Table, t.Session.UserID}]
	return slices.Compact(missing)
}
