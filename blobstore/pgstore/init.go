package pgstore

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"

	"mediafs/auth/betterauth"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const versionTable = "mediafs.schema_version"

// schemaVersion is the number of the last migration.
func schemaVersion() int32 {
	files, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is ours
	}
	return int32(len(files))
}

// InitReport says what Init found and did.
type InitReport struct {
	Before, After int32              // schema versions; 0: there was none
	Sessions      *betterauth.Tables // the application's tables that sessions are read from; nil: accounts alone
}

// InitOptions say what Init can't find out.
type InitOptions struct {
	// Tables are the names of the application's tables, or some of them; the others are found (betterauth.Find). They
	// are remembered. nil: those of last time, and there may be none. The zero Tables forgets them: all are found.
	Tables *betterauth.Tables
}

// Init makes a database a store, or brings one up to date, with the zero InitOptions.
func Init(ctx context.Context, url string) (InitReport, error) {
	return InitWith(ctx, url, InitOptions{})
}

// InitWith makes a database a store, or brings one up to date. It is idempotent. The login must be a superuser, or be able to
// create roles and to create schemas in the database (ErrPrivilege). betterauth.ErrNoTables: the tables that are named are not
// there; nothing is changed then.
func InitWith(ctx context.Context, url string, o InitOptions) (InitReport, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return InitReport{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	report, err := initialise(ctx, conn, o)
	if errors.Is(err, betterauth.ErrNoTables) {
		return report, err
	}
	if err != nil {
		return report, connectError(err)
	}
	return report, nil
}

// connect opens one connection with the login as it is.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, addressError(err)
	}
	config.ConnectTimeout = connectTimeout
	config.RuntimeParams["application_name"] = "mediafs"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, connectError(err)
	}
	return conn, nil
}

func initialise(ctx context.Context, conn *pgx.Conn, o InitOptions) (InitReport, error) {
	var report InitReport
	if o.Tables != nil { // before anything is made
		if _, err := betterauth.Find(ctx, conn, *o.Tables); err != nil {
			return report, err
		}
	}
	if err := makeRoles(ctx, conn); err != nil {
		return report, err
	}
	if err := allowHiding(ctx, conn); err != nil {
		return report, err
	}
	var err error
	if report.Before, err = version(ctx, conn); err != nil && !errors.Is(err, ErrNotInitialised) {
		return report, err
	}
	if report.Before > schemaVersion() {
		return report, ErrNewerSchema
	}
	if err := migrateTo(ctx, conn, schemaVersion()); err != nil {
		return report, err
	}
	report.After = schemaVersion()
	report.Sessions, err = readSessions(ctx, conn, o.Tables)
	return report, err
}

// migrateTo makes the schema, or brings it to a version. The roles are there.
func migrateTo(ctx context.Context, conn *pgx.Conn, version int32) error {
	_, err := conn.Exec(ctx, `
		create schema if not exists mediafs authorization mediafs_owner;
		grant usage on schema mediafs to mediafs;
		set role mediafs_owner`)
	if err != nil {
		return err
	}
	migrator, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return err
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	if err := migrator.LoadMigrations(files); err != nil {
		return err
	}
	if err := migrator.MigrateTo(ctx, version); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "grant select on "+versionTable+" to mediafs; reset role")
	return err
}

// makeRoles sees to it that the roles exist, and that this login may act as each: the owner of the tables, the one that mounts use, and the
// one that the operations run as (migrations/011_worker.sql).
func makeRoles(ctx context.Context, conn *pgx.Conn) error {
	for _, role := range []string{"mediafs_owner", "mediafs", "mediafs_worker"} {
		var exists bool
		if err := conn.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", role).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			_, err := conn.Exec(ctx, "create role "+role+" nologin")
			var pg *pgconn.PgError
			if errors.As(err, &pg) && (pg.Code == "42710" || pg.Code == "23505") { // made by somebody else meanwhile
				err = nil
			}
			if err != nil {
				return fmt.Errorf("make the role %s: %w", role, err)
			}
		}
		var member bool
		if err := conn.QueryRow(ctx, "select pg_has_role($1, 'member')", role).Scan(&member); err != nil {
			return err
		}
		if !member {
			if _, err := conn.Exec(ctx, "grant "+role+" to current_user"); err != nil {
				return fmt.Errorf("become a member of the role %s: %w", role, err)
			}
		}
	}
	return nil
}

// readSessions has the database read the sessions of the web application whose tables are in it, if there are any.
// names are the names that somebody gave, nil for those that are remembered.
func readSessions(ctx context.Context, conn *pgx.Conn, names *betterauth.Tables) (*betterauth.Tables, error) {
	optional := false
	if names == nil {
		remembered, err := rememberedNames(ctx, conn)
		if err != nil {
			return nil, err
		}
		names, optional = &remembered, remembered == betterauth.Tables{}
	}
	tables, err := betterauth.Find(ctx, conn, *names)
	if errors.Is(err, betterauth.ErrNoTables) && optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	comment, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	for _, grant := range grants(tables) {
		if _, err := conn.Exec(ctx, grant); err != nil {
			return nil, fmt.Errorf("let the store read the application's sessions: %w", err)
		}
	}
	const quote = "$mediafs$"
	if strings.Contains(tables.SessionSQL(), quote) {
		return nil, fmt.Errorf("a table or column of the application's has %s in its name: rename it", quote)
	}
	_, err = conn.Exec(ctx, `
		begin;
		set local role mediafs_owner;
		create or replace function mediafs.app_session(p_token text)
		returns table (user_id text, role text, expires_at timestamptz, banned boolean)
		language plpgsql stable security definer set search_path = pg_catalog, pg_temp as `+quote+`
		#variable_conflict use_column
		begin
			return query `+tables.SessionSQL()+`;
		end `+quote+`;
		create or replace function mediafs.app_drive(p_token text, p_wanted text) returns integer
		language plpgsql stable security definer as `+quote+`
		declare
			v_role pg_catalog.text;
			v_expires_at pg_catalog.timestamptz;
			v_banned pg_catalog.bool;
			v_own pg_catalog.int4;
		begin
			select s.role, s.expires_at, s.banned, d.drive_id into v_role, v_expires_at, v_banned, v_own
			from (`+tables.SessionSQL()+`) s left join mediafs.drives d on d.owner operator(pg_catalog.=) s.user_id;
			if not found then
				raise exception 'mediafs: the token is not known' using errcode = 'MF001';
			end if;
			return mediafs.permitted_drive(v_role, v_expires_at, v_banned, v_own, p_wanted);
		end `+quote+`;
		create or replace function mediafs.session_drive() returns integer
		language plpgsql stable security definer as `+quote+`
		declare
			p_token pg_catalog.text := pg_catalog.current_setting('mediafs.token', true);
			v_drive pg_catalog.int4;
		begin
			if pg_catalog.starts_with(p_token, 'mfs_') then
				select a.drive_id into v_drive from mediafs.accounts a
					where a.token_hash operator(pg_catalog.=) (select pg_catalog.sha256(pg_catalog.convert_to(p_token, 'UTF8')))
						and coalesce(pg_catalog.current_setting('mediafs.drive', true), '') operator(pg_catalog.=) '';
			else
				select d.drive_id into v_drive from (`+tables.SessionSQL()+`) s join mediafs.drives d on d.owner operator(pg_catalog.=) s.user_id
					where not s.banned and s.expires_at operator(pg_catalog.>) pg_catalog.now()
						and coalesce(pg_catalog.current_setting('mediafs.drive', true), '') operator(pg_catalog.=) '';
			end if;
			if v_drive is null then
				v_drive := mediafs.any_session_drive();
			end if;
			return v_drive;
		end `+quote+`;
		revoke all on function mediafs.app_session(text), mediafs.app_drive(text, text) from public;
		comment on function mediafs.app_session(text) is `+literal(string(comment))+`;
		commit`)
	return &tables, err
}

// rememberedNames are the names that were given last time. They are the comment of the function that reads the tables.
func rememberedNames(ctx context.Context, conn *pgx.Conn) (betterauth.Tables, error) {
	var comment *string
	err := conn.QueryRow(ctx, "select obj_description('mediafs.app_session(text)'::regprocedure, 'pg_proc')").Scan(&comment)
	if err != nil || comment == nil || *comment == "{}" {
		return betterauth.Tables{}, err
	}
	return betterauth.ParseNames([]byte(*comment))
}

// literal quotes a string for a statement that takes no parameters.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(s) + "'"
}

// grants let the owner of the store read the columns of the application's tables that tell a session, and no others.
func grants(t betterauth.Tables) []string {
	sanitize := func(names ...string) string { return pgx.Identifier(names).Sanitize() }
	selected := func(table string, columns ...string) string {
		var list []string
		for _, c := range columns {
			if c != "" {
				list = append(list, sanitize(c))
			}
		}
		return "grant select (" + strings.Join(list, ", ") + ") on " + sanitize(t.Schema, table) + " to mediafs_owner"
	}
	return []string{
		"grant usage on schema " + sanitize(t.Schema) + " to mediafs_owner",
		selected(t.Session.Table, t.Session.Token, t.Session.UserID, t.Session.ExpiresAt),
		selected(t.User.Table, t.User.ID, t.User.Role, t.User.Banned, t.User.BanExpires),
	}
}

// version reads the schema's version; ErrNotInitialised if there is none.
func version(ctx context.Context, conn *pgx.Conn) (int32, error) {
	var there bool
	if err := conn.QueryRow(ctx, "select to_regclass('"+versionTable+"') is not null").Scan(&there); err != nil {
		return 0, err
	}
	if !there {
		return 0, ErrNotInitialised
	}
	var v int32
	err := conn.QueryRow(ctx, "select version from "+versionTable).Scan(&v)
	return v, err
}

// checkSchema refuses a schema that this program does not know.
func checkSchema(ctx context.Context, conn *pgx.Conn) error {
	v, err := version(ctx, conn)
	switch {
	case err != nil:
		return err
	case v < schemaVersion():
		return ErrOlderSchema
	case v > schemaVersion():
		return ErrNewerSchema
	}
	return nil
}
