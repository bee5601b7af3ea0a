package pgstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// Check looks at the whole store with an administrator's login, one that sees the rows of all drives (ErrPrivilege), and calls take for
// the first findings of each kind. With repair it sets right what it can; see blobstore.Check. The errors of Open apply.
//
// What is true of a store is true at each commit, so a check in one snapshot can run while drives are mounted and written to.
func Check(ctx context.Context, url string, repair bool, take func(blobstore.Finding)) (blobstore.CheckReport, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return blobstore.CheckReport{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	c := &checker{conn}
	if err := c.prepare(ctx); err != nil {
		return blobstore.CheckReport{}, checkError(ctx, err)
	}
	report, err := blobstore.Check(ctx, c, repair, take)
	return report, checkError(ctx, err)
}

func checkError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return connectError(err)
}

// checker is a connection of an administrator.
type checker struct{ conn *pgx.Conn }

// prepare refuses a login that would see too little: to one that the policies bind every drive looks whole. As a second guard,
// row_security = off makes a query fail that a policy would cut short.
//
// All queries here read whole tables, whose statistics may be missing or old: joins that look up row by row can become quadratic then, and are
// left out.
func (c *checker) prepare(ctx context.Context) error {
	if err := checkSchema(ctx, c.conn); err != nil {
		return err
	}
	var sees bool
	err := c.conn.QueryRow(ctx, `
		select r.rolsuper or r.rolbypassrls and exists (
			select from pg_roles o where o.rolname = 'mediafs_owner' and pg_has_role(r.oid, o.oid, 'usage'))
		from pg_roles r where r.rolname = current_user`).Scan(&sees)
	if err != nil {
		return err
	}
	if !sees {
		return fmt.Errorf("%w: login %q does not see the rows of all drives: a check needs a superuser, or a member of mediafs_owner that has BYPASSRLS",
			ErrPrivilege, c.conn.Config().User)
	}
	_, err = c.conn.Exec(ctx, `
		set row_security = off; set statement_timeout = 0; set jit = off; set work_mem = '64MB'; set enable_nestloop = off;
		set search_path = pg_catalog, pg_temp`)
	return err
}

// A survey looks at each row of one kind once, and asks all that can be wrong with it.
type survey struct {
	from  string // the rows, among them d, the drive
	ino   string // of the node that a row is about
	name  string // bytea: of the entry that a row is about
	rules []rule
}

// A rule is broken where its condition is true.
type rule struct {
	kind   string
	broken string // an expression
	says   string // an expression: the sentence
}

// sql is one query for all rules: of each row that breaks any, what each rule says of it.
func (s survey) sql() string {
	var says, broken []string
	for _, r := range s.rules {
		says = append(says, "case when "+r.broken+" then "+r.says+" end")
		broken = append(broken, "("+r.broken+")")
	}
	return "select coalesce(d.owner, 'public'), " + s.ino + ", " + s.name + ", array[" + strings.Join(says, ",\n") + "]::text[] from " + s.from +
		" where " + strings.Join(broken, "\nor ")
}

// The types of nodes, as st_mode has them.
const (
	typeFolder  = "16384"
	typeRegular = "32768"
	typeLink    = "40960"
	typesKnown  = "(4096, 8192, 16384, 24576, 32768, 40960, 49152)"
)

// checkedBlobs is what the chunks of each blob come to. They are most of what a store has, so they are read once, into a table of this
// connection.
const checkedBlobs = `
	insert into pg_temp.checked_blobs
	select c.drive_id, c.blob, sum(octet_length(c.data)), max(c.idx::bigint * d.chunk_size + octet_length(c.data)),
		count(*) filter (where c.idx < 0 or octet_length(c.data) not between 1 and d.chunk_size)
	from mediafs.chunks c join mediafs.drives d using (drive_id) group by c.drive_id, c.blob`

// drivesChecked is what drives come to. Neither the root counts as a node of the usage, nor what was cut from a file and is to be collected
// as bytes: see make, drop_name and collect in migrations.
const drivesChecked = `
	mediafs.drives d
	left join (select drive_id, sum(bytes) as bytes, sum(nodes) as nodes, count(*) as slots,
		bool_and(limited) as limited, bool_and(not limited) as unlimited from mediafs.usage group by 1) u using (drive_id)
	left join (select drive_id, count(*) filter (where ino <> 1) as nodes, bool_or(ino = 1) as root, max(greatest(ino, blob)) as top from mediafs.nodes group by 1) n using (drive_id)
	left join (select drive_id, max(greatest(ino, parent, position)) as top from mediafs.entries group by 1) e using (drive_id)
	left join (select b.drive_id, max(b.blob) as top, sum(b.bytes) as stored, sum(b.bytes) filter (where o.blob is not null) as bytes
		from pg_temp.checked_blobs b left join (select distinct drive_id, blob from mediafs.nodes where blob <> 0) o using (drive_id, blob) group by 1) b using (drive_id)
	left join (select drive_id, max(greatest(ino, blob)) as top from mediafs.removed group by 1) r using (drive_id)`

var surveys = []survey{
	{
		from: drivesChecked, ino: "0::bigint", name: "null::bytea",
		rules: []rule{
			{"no-root", "n.root is not true", "'it has no root folder'"},
			{"usage", "u.slots is distinct from 8", "format('its usage is kept in %s rows, not in 8', coalesce(u.slots, 0))"},
			{"usage", "coalesce(u.bytes, 0) <> coalesce(b.bytes, 0)",
				"format('its usage says %s bytes, and its files have %s', coalesce(u.bytes, 0), coalesce(b.bytes, 0))"},
			{"usage", "coalesce(u.nodes, 0) <> coalesce(n.nodes, 0)",
				"format('its usage says %s nodes, and it has %s', coalesce(u.nodes, 0), coalesce(n.nodes, 0))"},
			{"usage", "u.limited is distinct from (d.max_bytes > 0 or d.max_nodes > 0) or u.unlimited is distinct from (d.max_bytes = 0 and d.max_nodes = 0)",
				"'its usage is not held to its quota as it is set'"},
			{"numbers", "d.next_ino <= greatest(n.top, e.top, b.top, r.top)",
				"format('the next number that it gives is %s, and %s is in use', d.next_ino, greatest(n.top, e.top, b.top, r.top))"},
		},
	},
	{
		from: `mediafs.entries e join mediafs.drives d using (drive_id)
			left join mediafs.nodes n on n.drive_id = e.drive_id and n.ino = e.ino
			left join mediafs.nodes p on p.drive_id = e.drive_id and p.ino = e.parent`,
		ino: "e.ino", name: "e.name",
		rules: []rule{
			{"no-folder", "p.ino is null", "format('its folder, %s, is not there', e.parent)"},
			{"no-folder", "p.mode & 61440 <> " + typeFolder, "format('it is in %s, which is no folder', e.parent)"},
			{"no-node", "n.ino is null", "'a name of a node that is not there'"},
			{"name", `position('\x2f'::bytea in e.name) > 0 or position('\x00'::bytea in e.name) > 0 or e.name in ('\x2e', '\x2e2e')`,
				"'a name that no file can have'"},
			{"position", "e.position < 16", "format('its position in the folder is %s, and the first there is is 16', e.position)"},
		},
	},
	{
		from: `mediafs.nodes n join mediafs.drives d using (drive_id)
			left join (select drive_id, ino, count(*) as n, min(parent) as parent from mediafs.entries group by 1, 2) names
				on names.drive_id = n.drive_id and names.ino = n.ino
			left join (select e.drive_id, e.parent, count(*) as n from mediafs.entries e join mediafs.nodes f on f.drive_id = e.drive_id and f.ino = e.ino
				where f.mode & 61440 = ` + typeFolder + ` group by 1, 2) folders on folders.drive_id = n.drive_id and folders.parent = n.ino
			left join pg_temp.checked_blobs b on b.drive_id = n.drive_id and b.blob = n.blob and n.blob <> 0
			left join (select drive_id, blob, count(*) as n from mediafs.nodes where blob <> 0 group by 1, 2 having count(*) > 1) shared
				on shared.drive_id = n.drive_id and shared.blob = n.blob
			left join mediafs.removed r on r.drive_id = n.drive_id and r.ino = n.ino`,
		ino: "n.ino", name: "null::bytea",
		rules: []rule{
			{"type", "n.mode & 61440 not in " + typesKnown + " or n.mode not between 0 and 65535", "format('its mode is %s, which is of no type', n.mode)"},
			{"root", "n.ino = 1 and (n.mode & 61440 <> " + typeFolder + " or n.parent <> 1 or names.n > 0)",
				"'the root is no folder, or is in another'"},
			{"orphan", "n.ino <> 1 and names.n is null and not (n.nlink = 0 and r.ino is not null)",
				"'it is in no folder, and is not listed as removed'"},
			{"removed", "r.ino is not null and (names.n > 0 or n.nlink <> 0 or r.blob <> n.blob)",
				"format('it is listed as removed with blob %s; it has %s names, the link count %s and the blob %s', r.blob, coalesce(names.n, 0), n.nlink, n.blob)"},
			{"links", "n.nlink <> case when n.mode & 61440 = " + typeFolder + " then 2 + coalesce(folders.n, 0) when names.n is null then n.nlink else names.n end",
				"format('its link count is %s; it has %s names and %s folders', n.nlink, coalesce(names.n, 0), coalesce(folders.n, 0))"},
			{"second-name", "n.ino <> 1 and n.mode & 61440 = " + typeFolder + " and names.n > 1", "format('a folder that is in %s places', names.n)"},
			{"parent", "case when n.mode & 61440 <> " + typeFolder + " then n.parent <> 0 else n.ino <> 1 and names.n = 1 and n.parent <> names.parent end",
				"format('its parent is said to be %s, and is %s', n.parent, case when n.mode & 61440 = " + typeFolder + " then names.parent else 0 end)"},
			{"target", "(n.mode & 61440 = " + typeLink + ") <> (coalesce(octet_length(n.target), 0) > 0)",
				"case when n.mode & 61440 = " + typeLink + " then 'a link without a target' else 'it is no link and has a target' end"},
			{"size", "n.size < 0 or n.mode & 61440 <> " + typeRegular + " and n.size <> coalesce(octet_length(n.target), 0)", "format('its size is %s', n.size)"},
			{"blob", "(n.mode & 61440 = " + typeRegular + ") <> (n.blob <> 0)",
				"case when n.blob = 0 then 'a file without a blob' else 'it is no file and has a blob' end"},
			{"shared-blob", "shared.n > 1", "format('its blob, %s, is that of %s nodes', n.blob, shared.n)"},
			{"allocated", "n.allocated <> coalesce(b.bytes, 0)", "format('%s bytes are said to be stored, and %s are', n.allocated, coalesce(b.bytes, 0))"},
			{"past-end", "n.mode & 61440 = " + typeRegular + " and b.stop > n.size", "format('its size is %s, and its chunks reach to %s', n.size, b.stop)"},
		},
	},
	{
		from: `pg_temp.checked_blobs b join mediafs.drives d using (drive_id)
			left join (select drive_id, blob, min(ino) as ino from mediafs.nodes where blob <> 0 group by 1, 2) o on o.drive_id = b.drive_id and o.blob = b.blob
			left join mediafs.removed r on r.drive_id = b.drive_id and r.blob = b.blob`,
		ino: "coalesce(o.ino, 0)", name: "null::bytea",
		rules: []rule{
			{"orphan-blob", "o.ino is null and r.blob is null", "format('%s bytes in the blob %s, which no file has', b.bytes, b.blob)"},
			{"chunk", "b.bad > 0", "format('%s chunks of the blob %s have a wrong number or length', b.bad, b.blob)"},
			{"removed-blob", "o.ino is not null and r.ino = 0", "format('its blob, %s, is listed as removed', b.blob)"},
		},
	},
	{
		from: `mediafs.removed r join mediafs.drives d using (drive_id) left join mediafs.nodes n on n.drive_id = r.drive_id and n.ino = r.ino`,
		ino:  "r.ino", name: "null::bytea",
		rules: []rule{{"removed-node", "r.ino <> 0 and n.ino is null", "format('a node that is not there is listed as removed, with the blob %s', r.blob)"}},
	},
	{
		from: `mediafs.xattrs x join mediafs.drives d using (drive_id) left join mediafs.nodes n on n.drive_id = x.drive_id and n.ino = x.ino`,
		ino:  "x.ino", name: "x.name",
		rules: []rule{{"xattr", "n.ino is null", "'an extended attribute of a node that is not there'"}},
	},
	{
		from: `mediafs.accesses a join mediafs.drives d using (drive_id) left join mediafs.nodes n on n.drive_id = a.drive_id and n.ino = a.ino`,
		ino:  "a.ino", name: "null::bytea",
		rules: []rule{{"access", "n.ino is null", "format('%s opens of a node that is not there', a.count)"}},
	},
	{
		from: `mediafs.facts f join mediafs.drives d using (drive_id) left join mediafs.nodes n on n.drive_id = f.drive_id and n.ino = f.ino`,
		ino:  "f.ino", name: "null::bytea",
		rules: []rule{{"facts", "n.ino is null", "'what the content says of a node that is not there'"}},
	},
	{
		from: `mediafs.accounts a join mediafs.drives d using (drive_id)`,
		ino:  "0::bigint", name: "null::bytea",
		rules: []rule{{"account", "d.owner is distinct from a.user_id", "format('the account of %L is said to own it', a.user_id)"}},
	},
}

// Look implements blobstore.Checker in one snapshot.
func (c *checker) Look(ctx context.Context, found func(blobstore.Finding)) (report blobstore.CheckReport, err error) {
	// A database that is read-only unless told otherwise can be checked: the table is this connection's.
	_, err = c.conn.Exec(ctx, `
		begin read write;
		drop table if exists pg_temp.checked_blobs;
		create temporary table checked_blobs (drive_id integer not null, blob bigint not null, bytes bigint not null, stop bigint not null, bad bigint not null);
		commit`)
	if err != nil {
		return report, err
	}
	tx, err := c.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return report, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, checkedBlobs+"; analyze pg_temp.checked_blobs"); err != nil {
		return report, err
	}
	for _, look := range []func(context.Context, pgx.Tx, func(blobstore.Finding)) error{lookAtProtection, lookAtForeign} {
		if err := look(ctx, tx, found); err != nil {
			return report, err
		}
	}
	for _, s := range surveys {
		if err := s.run(ctx, tx, found); err != nil {
			return report, err
		}
	}
	err = eachRing(ctx, tx, 0, func(drive string, _ int32, ino int64) error {
		found(blobstore.Finding{Drive: blobstore.DriveName(drive), Kind: "ring", Ino: blobstore.Ino(ino), Says: "it is a folder in itself"})
		return nil
	})
	if err != nil {
		return report, err
	}
	err = tx.QueryRow(ctx, `select (select count(*) from mediafs.drives), (select count(*) from mediafs.nodes),
		(select coalesce(sum(bytes), 0)::bigint from pg_temp.checked_blobs)`).Scan(&report.Drives, &report.Nodes, &report.Bytes)
	return report, err
}

func (s survey) run(ctx context.Context, tx pgx.Tx, found func(blobstore.Finding)) error {
	rows, err := tx.Query(ctx, s.sql())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var drive string
		var ino int64
		var name []byte
		var says []*string
		if err := rows.Scan(&drive, &ino, &name, &says); err != nil {
			return err
		}
		for i, sentence := range says {
			if sentence != nil {
				found(blobstore.Finding{Drive: blobstore.DriveName(drive), Kind: s.rules[i].kind, Ino: blobstore.Ino(ino), Name: string(name), Says: *sentence})
			}
		}
	}
	return rows.Err()
}

// lookAtProtection finds what would let a drive be seen or changed by others, and indexes that hold no longer what they promise.
func lookAtProtection(ctx context.Context, tx pgx.Tx, found func(blobstore.Finding)) error {
	return storeFindings(ctx, tx, found, `
		with tables as (select c.* from pg_class c where c.relnamespace = 'mediafs'::regnamespace and c.relkind in ('r', 'p')
			and c.oid <> '`+versionTable+`'::regclass)
		select 'unprotected', relname, 'row-level security is not enabled and forced on the table ' || relname from tables
			where not (relrowsecurity and relforcerowsecurity)
		union all
		select 'table-owner', relname, format('the table %s belongs to %s, not to mediafs_owner', relname, relowner::regrole) from tables
			where relowner <> 'mediafs_owner'::regrole
		union all
		select 'mounting-role', rolname, format('the role %s may do more than mount: it is a superuser, has BYPASSRLS or is a member of mediafs_owner or mediafs_worker', rolname) from pg_roles
			where rolname = 'mediafs' and (rolsuper or rolbypassrls
				or pg_has_role(oid, 'mediafs_owner'::regrole, 'member') or pg_has_role(oid, 'mediafs_worker'::regrole, 'member'))
		union all
		select 'worker-role', rolname, format('the role %s may do more than what its functions do: it can sign in, is a superuser, has BYPASSRLS or is a member of mediafs_owner', rolname) from pg_roles
			where rolname = 'mediafs_worker' and (rolcanlogin or rolsuper or rolbypassrls or pg_has_role(oid, 'mediafs_owner'::regrole, 'member'))
		union all
		select 'policy', p.polname, format('the policy %s on the table %s lets others than mediafs_owner see or change rows of any drive', p.polname, t.relname)
			from pg_policy p join tables t on t.oid = p.polrelid
			where p.polpermissive and p.polroles <> array['mediafs_owner'::regrole::oid]
				and not (p.polroles = array['mediafs_worker'::regrole::oid] and coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
					= '(drive_id = (current_setting(''mediafs.checked''::text))::integer)')
				and coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) not like '(drive_id = mediafs.session\_drive())%'
				and coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) not like '((drive_id = mediafs.session\_drive()) AND %'
		union all
		select 'index', i.indexrelid::regclass::text, format('the index %s is not valid: REINDEX it', i.indexrelid::regclass)
			from pg_index i join tables t on t.oid = i.indrelid where not (i.indisvalid and i.indisready)
		union all
		select 'index', t.relname, format('the table %s has no primary key', t.relname) from tables t
			where not exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary)
		union all
		select 'index', 'entries_position', 'there is no unique index entries_position' from (values (1)) v
			where not exists (select from pg_index i where i.indexrelid = to_regclass('mediafs.entries_position') and i.indisunique)
		union all
		select 'no-public-drive', 'public', 'there is no public drive, of the number 1048575 and without an owner' from (values (1)) v
			where not exists (select from mediafs.drives d where d.drive_id = 1048575 and d.owner is null)`)
}

// lookAtForeign finds rows of drives that there are not. The keys begin with the drive, so finding which drives a table knows is quick however
// long it is.
func lookAtForeign(ctx context.Context, tx pgx.Tx, found func(blobstore.Finding)) error {
	rows, err := tx.Query(ctx, `select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
		where c.relnamespace = 'mediafs'::regnamespace and c.relkind in ('r', 'p') and a.attname = 'drive_id' and not a.attisdropped
			and c.relname not in ('drives', 'accounts') order by 1`)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, table := range tables {
		name := pgx.Identifier{"mediafs", table}.Sanitize()
		err := storeFindings(ctx, tx, found, `
			with recursive known as (
				(select t.drive_id from `+name+` t order by t.drive_id limit 1)
				union all
				select (select t.drive_id from `+name+` t where t.drive_id > k.drive_id order by t.drive_id limit 1) from known k where k.drive_id is not null)
			select 'foreign', `+literal(table)+`, format('%s rows of the table %s are of the drive %s, which is not there',
				(select count(*) from `+name+` t where t.drive_id = k.drive_id), `+literal(table)+`, k.drive_id)
			from known k where k.drive_id is not null and not exists (select from mediafs.drives d where d.drive_id = k.drive_id)`)
		if err != nil {
			return err
		}
	}
	return nil
}

// storeFindings are those of a query of kind, name and sentence.
func storeFindings(ctx context.Context, tx pgx.Tx, found func(blobstore.Finding), sql string) error {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var f blobstore.Finding
		if err := rows.Scan(&f.Kind, &f.Name, &f.Says); err != nil {
			return err
		}
		found(f)
	}
	return rows.Err()
}

// eachRing calls do for one folder of each ring of folders, from which no way leads to the root: the one with the smallest number. It looks at
// one drive, or with 0 at all, and keeps 17 bytes for each folder of one drive.
func eachRing(ctx context.Context, tx pgx.Tx, only int32, do func(drive string, id int32, ino int64) error) error {
	rows, err := tx.Query(ctx, `select coalesce(d.owner, 'public'), n.drive_id, n.ino, n.parent from mediafs.nodes n join mediafs.drives d using (drive_id)
		where n.mode & 61440 = `+typeFolder+` and n.ino <> 1 and ($1 = 0 or n.drive_id = $1) order by n.drive_id, n.ino`, only)
	if err != nil {
		return err
	}
	type ring struct {
		drive string
		id    int32
		ino   int64
	}
	var rings []ring
	var f folderTree
	var name string
	var id int32
	end := func() {
		for _, ino := range f.rings() {
			rings = append(rings, ring{name, id, ino})
		}
		f = folderTree{inos: f.inos[:0], parents: f.parents[:0]}
	}
	var drive string
	var driveID int32
	var ino, parent int64
	_, err = pgx.ForEachRow(rows, []any{&drive, &driveID, &ino, &parent}, func() error {
		if driveID != id {
			end()
			name, id = drive, driveID
		}
		f.inos, f.parents = append(f.inos, ino), append(f.parents, parent)
		return nil
	})
	if err != nil {
		return err
	}
	end()
	for _, r := range rings {
		if err := do(r.drive, r.id, r.ino); err != nil {
			return err
		}
	}
	return nil
}
