package pgstore_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// An attacker has the login that mounts use, and says what they like in its settings. Alice is the victim.
type attacker struct {
	*pgx.Conn
	t       *testing.T
	notices *[]string
}

func (h household) attacker(t *testing.T, token, drive string) attacker {
	t.Helper()
	config, err := pgx.ParseConfig(h.mountLogin(t))
	if err != nil {
		t.Fatal(err)
	}
	notices := new([]string)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { *notices = append(*notices, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	a := attacker{conn, t, notices}
	a.set(token, drive)
	return a
}

// set also says of alice's drive, which is the first one, that it has been checked: see migrations/011_worker.sql.
func (a attacker) set(token, drive string) {
	a.t.Helper()
	if _, err := a.Exec(a.t.Context(), "select set_config('mediafs.checked', '1', false)"); err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.Exec(a.t.Context(), "select set_config('mediafs.token', $1, false), set_config('mediafs.drive', $2, false)", token, drive); err != nil {
		a.t.Fatal(err)
	}
}

// rows runs a statement and returns how many rows came or were changed.
func (a attacker) rows(sql string) (int64, error) {
	tag, err := a.Exec(a.t.Context(), sql)
	return tag.RowsAffected(), err
}

// refusals are the codes that say no more than that something is not allowed: no session, another drive's session, an insufficient
// privilege or a policy, a guest, a column that nobody can set.
var refusals = []string{"MF001", "MF002", "MF003", "MF004", "42501", "25006", "428C9"}

func TestEveryTableIsUnderPoliciesThatBindItsOwnerToo(t *testing.T) {
	h := household{url: newStore(t)}
	open, err := h.count(t, h.url, "", `select count(*) from pg_class where relnamespace = 'mediafs'::regnamespace and relkind in ('r', 'p', 'm', 'f')
		and relname <> 'schema_version' and not (relrowsecurity and relforcerowsecurity)`)
	if err != nil || open != 0 {
		t.Errorf("got %d tables without forced row-level security, %v", open, err)
	}
	bypassing, err := h.count(t, h.url, "", `select count(*) from pg_class where relnamespace = 'mediafs'::regnamespace and relkind in ('v', 'S')
		and has_table_privilege('mediafs', oid, 'select') and not coalesce(reloptions, '{}') @> '{security_invoker=true}'`)
	if err != nil || bypassing != 0 {
		t.Errorf("got %d views and sequences that mounts may read with the rights of others, %v", bypassing, err)
	}
}

// What runs with its owner's rights must not take a name for what the caller has put in its place. Either its search_path ends with
// pg_temp, which would come first otherwise, or it names the schema of everything.
func TestWhatRunsWithTheOwnersRightsFindsNothingOfTheCallers(t *testing.T) {
	h := household{url: newStore(t)}
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `select p.proname from pg_proc p where p.pronamespace = 'mediafs'::regnamespace and p.prosecdef and p.proowner = 'mediafs_owner'::regrole
		and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp'] order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	// Asked for each statement; a SET clause would cost as much as they do.
	if want := []string{"admit", "any_session_drive", "app_drive", "app_session", "enter", "session_drive", "session_writable_drive"}; !slices.Equal(got, want) {
		t.Errorf("without a search_path: got %q, want %q", got, want)
	}
}

// What runs with the worker's rights lets nobody in before it has asked admit, which also sees to what names mean afterwards. Before
// that it looks for nothing without a schema: names of types that are words of SQL itself can't be taken.
func TestWhatRunsWithTheWorkersRightsAsksFirst(t *testing.T) {
	h := household{url: newStore(t)}
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `select p.proname, p.prosrc, p.prosecdef and p.proconfig is null and p.proargnames[1] = 'p_drive'
			and has_function_privilege('mediafs', p.oid, 'execute') and not exists (select from aclexplode(p.proacl) where grantee = 0)
		from pg_proc p where p.proowner = 'mediafs_worker'::regrole and p.provolatile = 'v'`)
	if err != nil {
		t.Fatal(err)
	}
	type function struct {
		Name, Source string
		Right        bool
	}
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[function])
	if err != nil || len(functions) < 10 {
		t.Fatalf("got %d functions, %v", len(functions), err)
	}
	// What they share may be called by nobody else, or has no variables: a session keeps a function as it was when it was first called.
	var shared []string
	for _, f := range functions {
		for _, called := range regexp.MustCompile(`mediafs\.(\w+)\(`).FindAllStringSubmatch(f.Source, -1) {
			shared = append(shared, called[1])
		}
	}
	var taken []string
	err = conn.QueryRow(t.Context(), `with recursive used (name) as (
			select unnest($1::text[])
			union select m[1] collate "default" from used u join pg_proc p on p.pronamespace = 'mediafs'::regnamespace and p.proname = u.name and not p.prosecdef,
				regexp_matches(p.prosrc, 'mediafs\.(\w+)\(', 'g') m)
		select coalesce(array_agg(p.proname::text), '{}') from pg_proc p where p.pronamespace = 'mediafs'::regnamespace and p.proname in (select name from used)
			and not p.prosecdef and has_function_privilege('mediafs', p.oid, 'execute') and p.prosrc ~* '\mdeclare\M'`, shared).Scan(&taken)
	if err != nil || len(shared) < 5 || len(taken) > 0 {
		t.Errorf("the worker uses %q, of which the mounting role may call %q first, %v", shared, taken, err)
	}
	first := regexp.MustCompile(`^\n(declare\n(\t\w+ (bigint|integer|integer\[\]|boolean|mediafs\.\w+|pg_catalog\.\w+)( := \d+)?;( --[^\n]*)?\n)+)?begin\n\tp_drive := mediafs\.admit\(p_drive\);\n`)
	for _, f := range functions {
		if !f.Right || !first.MatchString(f.Source) {
			t.Errorf("%s: got rights as they should be: %v, and\n%s", f.Name, f.Right, f.Source)
		}
	}
}

// What reads with the worker's rights does the same, and can't change anything: it is stable. Programs call it with a search_path of theirs, so it has one
// of its own.
func TestWhatReadsWithTheWorkersRightsAsksFirst(t *testing.T) {
	h := household{url: newStore(t)}
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `select p.proname, p.prosrc from pg_proc p where p.proowner = 'mediafs_worker'::regrole and p.provolatile <> 'v'
		and not (p.provolatile = 's' and p.prosecdef and p.proconfig @> array['search_path=pg_catalog, pg_temp'] and p.proargnames[1] = 'p_drive'
			and not exists (select from aclexplode(p.proacl) where grantee = 0) and p.prosrc ~ '^\n(declare\n.*\n)?begin\n\tp_drive := mediafs\.admit_reader\(p_drive\);\n')`)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil || len(bad) > 0 {
		t.Errorf("got %v, %v", bad, err)
	}
	if n, err := h.count(t, h.url, "", "select count(*) from pg_proc where proowner = 'mediafs_worker'::regrole and provolatile = 's'"); err != nil || n == 0 {
		t.Errorf("got %d functions, %v", n, err)
	}
}

// All functions of the worker, as the database has them, called for alice's drive. No argument but the drive's number matters.
func TestTheWorkerDoesNothingToAnothersDrive(t *testing.T) {
	h := newHousehold(t)
	before := h.fingerprint(t)
	conn, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	d := fmt.Sprint(h.aliceDrive)
	rows, err := conn.Query(t.Context(), `select format('select mediafs.%I(%s)', p.proname,
			(select string_agg(case when n = 1 then $1 else format('null::%s', format_type(a, null)) end, ', ' order by n) from unnest(p.proargtypes) with ordinality u (a, n)))
		from pg_proc p where p.proowner = 'mediafs_worker'::regrole`, d)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(calls) < 10 {
		t.Fatalf("got calls %q, %v", calls, err)
	}
	// Of helpers everybody may call those that run with the rights of the caller.
	calls = append(calls, "select mediafs.admit("+d+")", "select mediafs.touch_folder("+d+", 1, 1, 0)", "select mediafs.drop_folder("+d+", 1)", "select mediafs.charge("+d+", 1, 1)",
		"select mediafs.drop_name("+d+", (select n from mediafs.nodes n where ino = 1), 0, gen_random_uuid(), '{}')")
	for who, want := range map[string]struct {
		token string
		code  string
	}{"bob": {h.bob.Token.Reveal(), "MF004"}, "nobody": {"", "MF001"}, "a forged token": {"mfs_forged", "MF001"}, "a guest": {"guest", "25006"}} {
		for _, drive := range []string{"", d} {
			a := h.attacker(t, want.token, drive)
			for _, sql := range calls {
				_, err := a.rows(sql)
				reads := strings.Contains(sql, "asset") || strings.Contains(sql, "drive_folders") // a guest may read, but not this drive
				if asks := strings.Contains(sql, "null::"); asks && code(err) != want.code && (drive == "" && !reads || code(err) != "MF004") {
					t.Errorf("%s, for drive %q: %s: got %v, want %s", who, drive, sql, err, want.code)
				}
			}
		}
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
}

// Bob does all there is to his own drive, with whatever he likes in the place of operators, functions, types and tables. What he has put
// there must not run with the rights of others.
func TestNothingOfTheCallersRunsWithTheWorkersRights(t *testing.T) {
	h := newHousehold(t)
	a := h.attacker(t, h.bob.Token.Reveal(), "")
	if err := h.exec(t, h.url, "", "create schema evil authorization mount_login; grant usage on schema evil to public"); err != nil {
		t.Fatal(err)
	}
	var d int32
	if err := a.QueryRow(t.Context(), "select drive_id from mediafs.drives").Scan(&d); err != nil {
		t.Fatal(err)
	}
	tell := func(returns, value string) string {
		return "returns " + returns + " language plpgsql as $$ begin raise notice 'as %', current_user; return " + value + "; end $$"
	}
	plant := []string{
		"create function evil.octet_length(bytea) " + tell("integer", "1"),
		"create function evil.now() " + tell("timestamptz", "pg_catalog.now()"),
		"create function evil.pg_backend_pid() " + tell("integer", "1"),
		"create function evil.set_config(text, text, boolean) " + tell("text", "$2"),
		"create function evil.current_setting(text) " + tell("text", "'1'"),
		"create function evil.int4(boolean) " + tell("integer", "0"),
		"create function evil.array_length(anyarray, integer) " + tell("integer", "1"),
		"create domain pg_temp.bytea as pg_catalog.bytea",
		"create domain pg_temp.text as pg_catalog.text",
		"create domain pg_temp.record as pg_catalog.text",
		"create domain pg_temp.timestamptz as pg_catalog.timestamptz",
		"create temporary table nodes (like mediafs.nodes)",
		"create temporary table p as select 1 as sgid, 0::bigint as gid, 0::bigint as ino",
	}
	for _, of := range []string{"bigint, bigint", "integer, integer", "bigint, integer", "bytea, bytea", "text, text", "smallint, integer"} {
		left, right, _ := strings.Cut(of, ", ")
		for _, op := range []string{"=", "<>", ">", "<", "<=", ">="} {
			name := fmt.Sprintf("f%d", len(plant))
			plant = append(plant, "create function evil."+name+"("+of+") "+tell("boolean", "true"),
				"create operator evil."+op+" (function = evil."+name+", leftarg = "+left+", rightarg = "+right+")")
		}
		for _, op := range []string{"&", "|", "+", "-", "%"} {
			if left != "integer" && left != "bigint" {
				continue
			}
			name := fmt.Sprintf("f%d", len(plant))
			plant = append(plant, "create function evil."+name+"("+of+") "+tell(left, "$1"),
				"create operator evil."+op+" (function = evil."+name+", leftarg = "+left+", rightarg = "+right+")")
		}
	}
	for _, sql := range plant {
		if _, err := a.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	mount := "'00000000-0000-0000-0000-000000000001'"
	for _, path := range []string{"evil, pg_temp, pg_catalog", "pg_temp, evil", "evil"} {
		if _, err := a.Exec(t.Context(), "set search_path = "+path); err != nil {
			t.Fatal(err)
		}
		calls := []string{
			"make(%d, 1, 'file', 1001, 33152, 0, 0, 0, null, 0)",
			"make(%d, 1, 'folder', 1002, 16832, 0, 0, 0, null, 0)",
			"make(%d, 1, 'symlink', 1003, 41471, 0, 0, 0, 'target', 0)",
			"make_file(%d, 1, 'photo', 1004, 33152, 0, 0, '{0}', '{content}', 7, 0, 0, 0, 0)",
			"make_files(%d, '{1,1002}', '{one,two}', '{1011,1012}', '{33152,33152}', '{0,0}', '{0,0}', '{7,0}', '{0,0}', '{0,0}', '{0,0}', '{0,0}', '{1011}', '{0}', '{content}')",
			"unlink(%d, 1, 'one', 0, " + mount + ", '{}')",
			"unlink(%d, 1002, 'two', 0, " + mount + ", '{}')",
			"put(%d, 1001, 1001, '{0}', '{-2}', '{content}', 7, 0, 0, 0)",
			"put(%d, 1001, 1001, '{0,1}', '{3,3}', '{more,more}', 65543, 7, 0, 0)",
			"set_attr(%d, 1001, 127, 448, 1, 1, 3, 4, 5, 6, 1005, 65536, " + mount + ")",
			"zero_range(%d, 1001, 1, 2, 3, 6, 65536)",
			"set_xattr(%d, 1001, 'user.a', 'v', 0, false, 0)",
			"remove_xattr(%d, 1001, 'user.a', false, 0)",
			"link(%d, 1001, 1002, 'linked', 1006, 65000, 0)",
			"rename(%d, 1, 'file', 1, 'renamed', 0, 1007, 0, " + mount + ", '{}')",
			"rename(%d, 1, 'renamed', 1002, 'moved', 0, 1008, 0, " + mount + ", '{}')",
			"rename(%d, 1, 'photo', 1, 'symlink', 0, 1009, 0, " + mount + ", '{}')",
			"rename(%d, 1, 'symlink', 1002, 'moved', 2, 1010, 0, " + mount + ", '{}')",
			"unlink(%d, 1, 'symlink', 0, " + mount + ", '{}')",
			"unlink(%d, 1002, 'moved', 0, " + mount + ", '{1004}')",
			"unlink(%d, 1002, 'linked', 0, " + mount + ", '{}')",
			"rmdir(%d, 1, 'folder', 0)",
			"collect(%d, '{1004}', 10)",
			"copy_range(%d, 1001, 0, 100000, 1004, 0, 0, 65536)",
			"beat(%d, " + mount + ", 'host', '{}')",
		}
		for _, call := range calls {
			if _, err := a.Exec(t.Context(), "select mediafs."+fmt.Sprintf(call, d), pgx.QueryExecModeSimpleProtocol); err != nil && !strings.HasPrefix(call, "beat") && !strings.HasPrefix(call, "copy_range") {
				t.Errorf("with the path %s: %s: got %v", path, call, err)
			}
		}
		if err := h.exec(t, h.url, "", fmt.Sprintf("delete from mediafs.removed where drive_id = %[1]d; delete from mediafs.nodes where drive_id = %[1]d and ino > 1000; delete from mediafs.chunks where drive_id = %[1]d", d)); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(*a.notices, "as mount_login") { // beat is no function of the worker
		t.Error("what bob has made ran nowhere: the test shows nothing")
	}
	for _, notice := range *a.notices {
		if strings.HasPrefix(notice, "as ") && notice != "as mount_login" {
			t.Errorf("what bob has made ran %s", notice)
		}
	}
}

func TestNoStatementOfAnotherSessionReachesARow(t *testing.T) {
	h := newHousehold(t)
	ada := signInAs(t, h.url, "ada", auth.RoleAdmin)
	before := h.fingerprint(t)
	d := fmt.Sprint(h.aliceDrive)
	for who, a := range map[string]attacker{
		"nobody":                         h.attacker(t, "", ""),
		"nobody, for alice's drive":      h.attacker(t, "", d),
		"a forged token":                 h.attacker(t, "mfs_forged", d),
		"alice by her name":              h.attacker(t, "alice", d),
		"bob":                            h.attacker(t, h.bob.Token.Reveal(), ""),
		"bob, for alice's drive":         h.attacker(t, h.bob.Token.Reveal(), d),
		"a guest":                        h.attacker(t, "guest", ""),
		"a guest, for alice's drive":     h.attacker(t, "guest", d),
		"an admin, for the public drive": h.attacker(t, ada.Token.Reveal(), "1048575"),
	} {
		for _, table := range h.tables(t) {
			for _, sql := range []string{
				"select from mediafs.%[1]s where drive_id = %[2]s",
				"select from mediafs.%[1]s r where r.drive_id::text = '%[2]s'",
				"select from (select * from mediafs.%[1]s offset 0) r where drive_id = %[2]s",
				"select from mediafs.%[1]s where drive_id = %[2]s for update",
				"select from mediafs.%[1]s where drive_id = %[2]s for share",
				"with r as materialized (select * from mediafs.%[1]s) select from r where drive_id = %[2]s",
				"delete from mediafs.%[1]s where drive_id = %[2]s",
				"update mediafs.%[1]s set drive_id = drive_id where drive_id = %[2]s",
				"merge into mediafs.%[1]s t using (values (%[2]s)) s (d) on t.drive_id = s.d when matched then delete",
				"insert into mediafs.%[1]s select * from mediafs.%[1]s where drive_id = %[2]s",
				"create temporary table stolen on commit drop as select * from mediafs.%[1]s where drive_id = %[2]s",
				"copy (select * from mediafs.%[1]s where drive_id = %[2]s) to stdout",
			} {
				sql = fmt.Sprintf(sql, table, d)
				if n, err := a.rows(sql); n != 0 || err != nil && !slices.Contains(refusals, code(err)) {
					t.Errorf("%s: %s: got %d rows, %v", who, sql, n, err)
				}
			}
			for _, sql := range []string{"truncate mediafs.%s", "lock table mediafs.%s", "drop table mediafs.%s", "alter table mediafs.%s disable row level security",
				"create policy mine on mediafs.%s using (true)", "copy mediafs.%s from stdin", "create trigger mine after insert on mediafs.%s execute function now()",
				"create index on mediafs.%s (drive_id)", "comment on table mediafs.%s is 'mine'"} {
				sql = fmt.Sprintf(sql, table)
				if _, err := a.rows(sql); err == nil {
					t.Errorf("%s: %s: got no error", who, sql)
				}
			}
			// What a plan shows: no row of hers goes through it, nor is one counted where it is filtered out.
			for _, sql := range []string{"select * from mediafs.%s where drive_id = %s", "select * from mediafs.%s where drive_id between %[2]s and %[2]s"} {
				var plan string
				if err := a.QueryRow(t.Context(), "explain (analyze, costs off, timing off, summary off, format text) "+fmt.Sprintf(sql, table, d)).Scan(&plan); err == nil && !strings.Contains(plan, "rows=0") && !strings.Contains(plan, "never executed") {
					t.Errorf("%s: plan of %s: got %s", who, table, plan)
				}
			}
		}
		for _, sql := range []string{"set role mediafs_owner", "set role mediafs_worker", "select mediafs.admit(" + d + ")", "set session authorization postgres", "reset session authorization; set role postgres",
			"select * from mediafs.accounts", "select mediafs.app_session('x')", "select mediafs.app_drive('x', '" + d + "')",
			"select mediafs.permitted_drive('admin', null, false, null, '" + d + "')", "select mediafs.signed_in('x')",
			"alter role mediafs set mediafs.token = 'x'", "create function mediafs.mine() returns int language sql as 'select 1'",
			"create or replace function mediafs.session_drive() returns integer language sql as 'select " + d + "'",
			"alter function mediafs.session_drive() owner to current_user", "create table mediafs.mine ()", "alter schema mediafs rename to mine"} {
			if _, err := a.rows(sql); err == nil && !strings.HasPrefix(sql, "reset") {
				t.Errorf("%s: %s: got no error", who, sql)
			}
			_, _ = a.rows("reset role")
		}
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
}

func TestForgedSettingsOpenNothing(t *testing.T) {
	h := newHousehold(t)
	d := fmt.Sprint(h.aliceDrive)
	a := h.attacker(t, h.bob.Token.Reveal(), "")
	ctx := t.Context()
	exec := func(sql string, args ...any) error { _, err := a.Exec(ctx, sql, args...); return err }
	count := func() (n int, err error) {
		err = a.QueryRow(ctx, "select count(*) from mediafs.nodes where drive_id = "+d).Scan(&n)
		return n, err
	}
	// Whatever a transaction does with the settings, also after it has looked with a good token, and within savepoints.
	for _, set := range []string{
		"set local mediafs.drive = '" + d + "'",
		"select set_config('mediafs.drive', '" + d + "', true)",
		"savepoint s; set local mediafs.drive = '" + d + "'; release s",
		"do $$ begin perform set_config('mediafs.drive', '" + d + "', true); end $$",
		"set local mediafs.drive = ' " + d + "'",
		"set local mediafs.drive = '" + d + "; select 1'",
		"set local mediafs.role = 'admin'; set local mediafs.drive = '" + d + "'",
		"set local mediafs.token = 'mfs_'; set local mediafs.drive = '" + d + "'",
		"set local mediafs.checked = '" + d + "'",
		"set local mediafs.checked = '" + d + "'; select mediafs.set_attr(2, 1, 1, 448, 0, 0, 0, 0, 0, 0, 0, 65536, gen_random_uuid()); set local mediafs.checked = '" + d + "'",
		"set local search_path = pg_temp, mediafs; set local mediafs.drive = '" + d + "'",
		"set local row_security = off",
		"set local session_replication_role = replica",
	} {
		if err := exec("begin"); err != nil {
			t.Fatal(err)
		}
		if _, err := count(); err != nil {
			t.Fatal(err)
		}
		err := exec(set)
		if err == nil {
			var n int
			if n, err = count(); err == nil && n != 0 {
				t.Errorf("%s: got %d of alice's nodes", set, n)
			}
		}
		if err != nil && !slices.Contains(append(refusals, "22P02", "25P02"), code(err)) {
			t.Errorf("%s: got %v", set, err)
		}
		if err := exec("rollback"); err != nil {
			t.Fatal(err)
		}
	}
	// A plan that was made for one token does not serve another, and neither does what a cursor has still to give.
	owner := h.attacker(t, h.alice.Token.Reveal(), "")
	for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
		if _, err := owner.Exec(ctx, "set plan_cache_mode = "+mode+"; prepare peek_"+mode+" as select count(*) from mediafs.nodes where drive_id = "+d); err != nil {
			t.Fatal(err)
		}
		var hers, his int
		if err := owner.QueryRow(ctx, "execute peek_"+mode, pgx.QueryExecModeSimpleProtocol).Scan(&hers); err != nil || hers == 0 {
			t.Fatalf("alice herself: got %d, %v", hers, err)
		}
		owner.set(h.bob.Token.Reveal(), "")
		if err := owner.QueryRow(ctx, "execute peek_"+mode, pgx.QueryExecModeSimpleProtocol).Scan(&his); err != nil || his != 0 {
			t.Errorf("%s: bob with alice's plan: got %d, %v, want 0", mode, his, err)
		}
		owner.set(h.alice.Token.Reveal(), "")
	}
}

// A function that costs little is called early. If it were called before the policy has decided, it could tell what it is given.
func TestFunctionsInAConditionAreGivenNoRowsOfOthers(t *testing.T) {
	h := newHousehold(t)
	a := h.attacker(t, h.bob.Token.Reveal(), "")
	for _, sql := range []string{
		"create function pg_temp.tell(anyelement) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice 'given %', $1; return true; end $$",
		"create function pg_temp.same(bytea, bytea) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice 'given %', $1; return true; end $$",
		"create operator pg_temp.=== (function = pg_temp.same, leftarg = bytea, rightarg = bytea)",
	} {
		if _, err := a.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	before := len(*a.notices)
	d := fmt.Sprint(h.aliceDrive)
	for _, sql := range []string{
		"select from mediafs.entries where pg_temp.tell(name)",
		"select from mediafs.entries where name operator(pg_temp.===) 'x'",
		"select from mediafs.entries where drive_id = " + d + " and pg_temp.tell(name)",
		"select from mediafs.chunks where pg_temp.tell(data) and drive_id = " + d,
		"delete from mediafs.entries where pg_temp.tell(name)",
		"update mediafs.nodes set atime_ns = 0 where pg_temp.tell(ino) and drive_id = " + d,
		"select from mediafs.audit where pg_temp.tell(path) and drive_id = " + d,
		"select from mediafs.entries where drive_id / 0 = 1 and drive_id = " + d, // an error would tell that there is a row
		"select 1 / (name = 'nothing')::int from mediafs.entries where drive_id = " + d,
	} {
		if _, err := a.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: got %v", sql, err)
		}
	}
	for _, notice := range (*a.notices)[before:] {
		// Bob's own root may be told, and what he did himself.
		if strings.Contains(notice, `\x736563726574`) || strings.Contains(notice, "secret") || strings.Contains(notice, "folder") {
			t.Errorf("a function was given %s", notice)
		}
	}
}

func TestNoErrorTellsWhetherARowOfAnotherIsThere(t *testing.T) {
	h := newHousehold(t)
	a := h.attacker(t, h.bob.Token.Reveal(), "")
	d := fmt.Sprint(h.aliceDrive)
	before := h.fingerprint(t)
	for _, sql := range []string{
		"insert into mediafs.entries (drive_id, parent, name, position, ino) values (" + d + ", 1, '%s', 99, 1)",
		"insert into mediafs.entries (drive_id, parent, name, position, ino) values (" + d + ", 1, '%s', 99, 1) on conflict do nothing",
		"insert into mediafs.entries (drive_id, parent, name, position, ino) values (" + d + ", 1, '%s', 99, 1) on conflict (drive_id, parent, name) do update set ino = 1",
		"select mediafs.make(" + d + ", 1, '%s', 99, 33152, 0, 0, 0, null, 0)",
		"select mediafs.unlink(" + d + ", 1, '%s', 0, gen_random_uuid(), '{}')",
		"select mediafs.rmdir(" + d + ", 1, '%s', 0)",
	} {
		_, there := a.rows(fmt.Sprintf(sql, "secret"))
		_, notThere := a.rows(fmt.Sprintf(sql, "nothing"))
		if code(there) != code(notThere) || there == nil || code(there) == "23505" || strings.ReplaceAll(there.Error(), "secret", "nothing") != notThere.Error() {
			t.Errorf("%s: got %v where it is, and %v where it is not", sql, there, notThere)
		}
	}
	// The policy refuses before any index is looked at (otherwise it would be a unique violation), so the time tells nothing either.
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
}

func TestAnAdminWhoIsNoneAnyMoreReachesNoDrive(t *testing.T) {
	h := newHousehold(t)
	ada := signInAs(t, h.url, "ada", auth.RoleAdmin)
	store, err := pgstore.Open(t.Context(), h.url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	drive, err := store.OpenDrive(t.Context(), ada, "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer drive.Close(t.Context())
	if _, err := drive.Lookup(t.Context(), blobstore.RootIno, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := h.exec(t, h.url, "", "update mediafs.accounts set role = 'user' where user_id = 'ada'"); err != nil {
		t.Fatal(err)
	}
	if _, err := drive.Lookup(t.Context(), blobstore.RootIno, "secret"); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("look up: got %v, want %v", err, auth.ErrRevoked)
	}
	if _, err := store.OpenDrive(t.Context(), ada, "alice"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("open again: got %v, want %v", err, blobstore.ErrNotExist)
	}
}

func TestNobodyTakesAnythingOutOfTheAuditLogOrAddsToAnothers(t *testing.T) {
	h := newHousehold(t)
	ada := signInAs(t, h.url, "ada", auth.RoleAdmin)
	before := h.fingerprint(t)
	d := fmt.Sprint(h.aliceDrive)
	const batch = "1, '{1}', '{open}', '{0}', '{/}', '{\"\"}', '{0}', '{1}', '{0}', '{ok}'"
	for who, a := range map[string]attacker{
		"alice": h.attacker(t, h.alice.Token.Reveal(), ""), "bob": h.attacker(t, h.bob.Token.Reveal(), ""), "an admin": h.attacker(t, ada.Token.Reveal(), d),
	} {
		for _, table := range []string{"audit", "attachments", "accesses"} {
			for _, sql := range []string{"delete from mediafs.%s", "update mediafs.%s set drive_id = drive_id", "truncate mediafs.%s", "insert into mediafs.%[1]s select * from mediafs.%[1]s"} {
				if _, err := a.rows(fmt.Sprintf(sql, table)); code(err) != "42501" {
					t.Errorf("%s: %s of %s: got %v, want an insufficient privilege", who, sql, table, err)
				}
			}
		}
		for _, sql := range []string{
			"select mediafs.record(" + d + ", gen_random_uuid(), sha256('forged'), " + batch + ")",
			// The number of a mount, which others of the drive can see, is not the right to write as it.
			"select mediafs.record(drive_id, mount_id, sha256('forged'), " + batch + ") from mediafs.attachments where drive_id = " + d,
			"select mediafs.record(drive_id, mount_id, key_hash, " + batch + ") from mediafs.attachments where drive_id = " + d,
		} {
			if n, err := a.rows(sql); code(err) != "MF404" && (who != "bob" || err != nil || n != 0) {
				t.Errorf("%s: %s: got %d rows, %v, want MF404", who, sql, n, err)
			}
		}
		if _, err := a.rows("select mediafs.attach(" + d + ", gen_random_uuid(), '\\x00', 'elsewhere')"); who == "bob" && code(err) != "MF001" {
			t.Errorf("bob attaches to alice's log: got %v, want MF001", err)
		}
	}
	if err := h.exec(t, h.url, "", "delete from mediafs.attachments where host = 'elsewhere'"); err != nil {
		t.Fatal(err)
	}
	if got := h.fingerprint(t); got != before {
		t.Error("what alice has changed")
	}
	seen := 0
	store, err := pgstore.Open(t.Context(), h.url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	err = store.AuditLog(t.Context(), h.bob, blobstore.AuditQuery{Since: time.Now().Add(-time.Hour)}, func(r *blobstore.AuditRecord) bool {
		seen++
		if r.Drive != "bob" {
			t.Errorf("bob reads %+v", r)
		}
		return true
	})
	if err != nil || seen == 0 {
		t.Errorf("bob's own log: got %d records, %v", seen, err)
	}
}
