package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mediafs/blobstore"
)

// repairWaits is how long a repair waits for the transactions of mounts to end; meanwhile those that come later wait for it. Tests shorten it.
var repairWaits = 10 * time.Second

// repairTries is how often a drive's repair is begun anew when it and a mount wait for each other.
const repairTries = 5

// Repair implements blobstore.Checker. Each drive is one transaction. It works on tables that are as its steps before left them, so that in the
// end each node has a name, each blob a node, and each count is what it counts; names and content that have no place go to lost+found.
func (c *checker) Repair(ctx context.Context, drives []blobstore.DriveName) error {
	for _, name := range drives {
		repair := func(tx pgx.Tx) error { return repairDrive(ctx, tx, string(name)) }
		if name == "" {
			repair = func(tx pgx.Tx) error { return protect(ctx, tx) }
		}
		for try := 1; ; try++ {
			err := pgx.BeginFunc(ctx, c.conn, repair)
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == "40P01" && try < repairTries { // deadlock_detected
				continue
			}
			if errors.As(err, &pg) && pg.Code == "55P03" { // lock_not_available
				err = fmt.Errorf("another program holds a lock on the store's tables: unmount the drive %q or end that program", name)
			}
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// protect turns on again the protection that no table may be without.
func protect(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `select c.relname from pg_class c where c.relnamespace = 'mediafs'::regnamespace and c.relkind in ('r', 'p')
		and c.oid <> '`+versionTable+`'::regclass and not (c.relrowsecurity and c.relforcerowsecurity)`)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, table := range tables {
		name := pgx.Identifier{"mediafs", table}.Sanitize()
		if _, err := tx.Exec(ctx, "alter table "+name+" enable row level security, force row level security"); err != nil {
			return err
		}
	}
	return nil
}

// A repairer sets one drive right, in one transaction.
type repairer struct {
	tx    pgx.Tx
	drive int32
	lost  int64 // the folder lost+found; 0: not needed yet
	nowNs int64
}

func repairDrive(ctx context.Context, tx pgx.Tx, name string) error {
	r := &repairer{tx: tx, nowNs: time.Now().UnixNano()}
	err := tx.QueryRow(ctx, "select drive_id from mediafs.drives where coalesce(owner, 'public') = $1", name).Scan(&r.drive)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // what there is of it is not a drive's
	}
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		r.lock, r.settleNumbers, r.settleNodes, r.settleBlobs, r.rescueChunks, r.rescueBlobs, r.rescueNames, r.settleParents, r.rescueNodes, r.breakRings, r.touch, r.count, r.appear,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// do runs statements in which $1 is the drive.
func (r *repairer) do(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := r.tx.Exec(ctx, sql, r.drive); err != nil {
			return err
		}
	}
	return nil
}

// any says whether a query has rows. In it $1 is the drive.
func (r *repairer) any(ctx context.Context, query string) (there bool, err error) {
	err = r.tx.QueryRow(ctx, "select exists ("+query+")", r.drive).Scan(&there)
	return there, err
}

// lock lets nobody but readers in until the repair is done. The tables come in the order in which operations first write to them, and the
// drive's row before them, as in open_drive: so whoever has one of these locks needs none that was taken before.
func (r *repairer) lock(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = %d", repairWaits.Milliseconds())); err != nil {
		return err
	}
	if err := r.do(ctx, "select from mediafs.drives where drive_id = $1 for update"); err != nil {
		return err
	}
	_, err := r.tx.Exec(ctx, "lock table mediafs.removed, mediafs.nodes, mediafs.entries, mediafs.chunks, mediafs.xattrs, mediafs.facts, mediafs.usage in exclusive mode")
	return err
}

// settleNumbers has the drive give numbers that are not in use.
func (r *repairer) settleNumbers(ctx context.Context) error {
	return r.do(ctx, `
		update mediafs.drives d set next_ino = greatest(d.next_ino, t.top + 1) from (
			select max(greatest(ino, blob)) as top from mediafs.nodes where drive_id = $1
			union all select max(greatest(ino, parent, position)) from mediafs.entries where drive_id = $1
			union all select max(blob) from mediafs.chunks where drive_id = $1
			union all select max(greatest(ino, blob)) from mediafs.removed where drive_id = $1
			union all select max(ino) from mediafs.xattrs where drive_id = $1
			order by 1 desc nulls last limit 1) t
		where d.drive_id = $1 and t.top is not null`,
		numbered(`select e.parent, e.name from mediafs.entries e where e.drive_id = $1 and e.position < 16`,
			`update mediafs.entries e set position = n.number from numbered n where e.drive_id = $1 and e.parent = n.parent and e.name = n.name`))
}

// numbered has each row of a query get a new number of the drive, as the column number of the table numbered, and does something with it.
func numbered(query, do string) string {
	return `with needy as (` + query + `),
		taken as (update mediafs.drives set next_ino = next_ino + (select count(*) from needy)
			where drive_id = $1 and exists (select from needy) returning next_ino - (select count(*) from needy) - 1 as base),
		numbered as (select needy.*, taken.base + row_number() over () as number from needy, taken)
		` + do
}

// columns of a node that a repair makes. Its times are the repair's; it belongs to the drive's owner.
const madeColumns = "(drive_id, ino, parent, blob, size, mode, nlink, uid, gid, target, atime_ns, mtime_ns, ctime_ns)"

func (r *repairer) times() string { return fmt.Sprintf("%d, %d, %d", r.nowNs, r.nowNs, r.nowNs) }

// settleNodes makes the root if it is missing, and of each node something of one type. What has a type that there is not is what it looks like.
// A target of what is no link becomes a link of its own.
func (r *repairer) settleNodes(ctx context.Context) error {
	return r.do(ctx,
		`insert into mediafs.nodes `+madeColumns+` values ($1, 1, 1, 0, 0, 16384 + 448, 2, 0, 0, null, `+r.times()+`) on conflict do nothing`,
		`update mediafs.nodes n set mode = n.mode & 4095 | case
				when n.ino = 1 or exists (select from mediafs.entries e where e.drive_id = $1 and e.parent = n.ino) then 16384
				when n.blob = 0 and octet_length(n.target) > 0 then 40960
				else 32768 end
			where n.drive_id = $1 and (n.mode & 61440 not in `+typesKnown+` or n.mode not between 0 and 65535 or n.ino = 1 and n.mode & 61440 <> 16384)`,
		numbered(`select n.ino, n.target from mediafs.nodes n where n.drive_id = $1 and n.mode & 61440 <> 40960 and octet_length(n.target) > 0`,
			`insert into mediafs.nodes `+madeColumns+`
				select $1, number, 0, 0, octet_length(target), 40960 + 511, 0, 0, 0, target, `+r.times()+` from numbered`),
		`update mediafs.nodes set target = null where drive_id = $1 and target is not null and mode & 61440 <> 40960`,
		`update mediafs.nodes set mode = 32768 + 384, target = null, size = 0
			where drive_id = $1 and mode & 61440 = 40960 and coalesce(octet_length(target), 0) = 0`,
		`update mediafs.nodes set blob = 0 where drive_id = $1 and mode & 61440 <> 32768 and blob <> 0`,
		`update mediafs.nodes set size = coalesce(octet_length(target), 0)
			where drive_id = $1 and mode & 61440 <> 32768 and size <> coalesce(octet_length(target), 0)`,
		`update mediafs.nodes n set size = coalesce((select max(c.idx::bigint * d.chunk_size + octet_length(c.data)) from mediafs.chunks c, mediafs.drives d
				where c.drive_id = $1 and c.blob = n.blob and d.drive_id = $1), 0)
			where n.drive_id = $1 and n.size < 0`)
}

// settleBlobs gives each file a blob of its own, with a copy of the content where two had one, and lets no blob that a file has, and no node
// that has a name, be collected.
func (r *repairer) settleBlobs(ctx context.Context) error {
	return r.do(ctx,
		numbered(`select n.ino, n.blob from (select ino, blob, row_number() over (partition by blob order by nlink = 0, ino) as nth
				from mediafs.nodes where drive_id = $1 and blob <> 0) n where n.nth > 1
			union all select n.ino, n.blob from mediafs.nodes n where n.drive_id = $1 and n.mode & 61440 = 32768 and n.blob = 0`,
			`, copied as (insert into mediafs.chunks (drive_id, blob, idx, data)
				select $1, n.number, c.idx, c.data from numbered n join mediafs.chunks c on c.drive_id = $1 and c.blob = n.blob where n.blob <> 0)
			update mediafs.nodes m set blob = n.number from numbered n where m.drive_id = $1 and m.ino = n.ino`),
		`delete from mediafs.removed r where r.drive_id = $1 and r.ino = 0
			and exists (select from mediafs.nodes n where n.drive_id = $1 and n.blob = r.blob)`,
		`delete from mediafs.removed r where r.drive_id = $1 and r.ino <> 0 and (
			r.ino in (select e.ino from mediafs.entries e where e.drive_id = $1) or not exists (
			select from mediafs.nodes n where n.drive_id = $1 and n.ino = r.ino and n.blob = r.blob and n.nlink = 0))`)
}

// rescueChunks moves what is no part of a file's content, but in its blob, to blobs of their own: chunks past the end where they are, chunks of a
// wrong number or length one after the other.
func (r *repairer) rescueChunks(ctx context.Context) error {
	const kept = "not exists (select from mediafs.removed r where r.drive_id = $1 and r.blob = c.blob and r.ino = 0)"
	const bad = `select c.blob, c.idx, c.data, d.chunk_size from mediafs.chunks c join mediafs.drives d using (drive_id)
		where c.drive_id = $1 and (c.idx < 0 or octet_length(c.data) > d.chunk_size) and ` + kept
	const past = `mediafs.chunks c join mediafs.drives d using (drive_id) join mediafs.nodes n on n.drive_id = $1 and n.blob = c.blob
		where c.drive_id = $1 and c.idx::bigint * d.chunk_size + octet_length(c.data) > n.size`
	return r.do(ctx,
		`delete from mediafs.chunks c where c.drive_id = $1 and octet_length(c.data) = 0`,
		numbered(`select distinct c.blob from mediafs.chunks c where c.drive_id = $1 and c.blob <= 0`,
			`update mediafs.chunks c set blob = n.number from numbered n where c.drive_id = $1 and c.blob = n.blob`),
		numbered(`select distinct b.blob from (`+bad+`) b`,
			`, pieces as (
				select n.number, b.blob, b.idx, at, substring(b.data for b.chunk_size from at * b.chunk_size + 1) as data
				from numbered n join (`+bad+`) b using (blob), generate_series(0, (octet_length(b.data) - 1) / b.chunk_size) at),
			moved as (insert into mediafs.chunks (drive_id, blob, idx, data)
				select $1, number, row_number() over (partition by number order by idx, at) - 1, data from pieces),
			cut as (update mediafs.chunks c set data = substring(c.data for d.chunk_size) from mediafs.drives d
				where d.drive_id = $1 and c.drive_id = $1 and c.idx >= 0 and octet_length(c.data) > d.chunk_size and `+kept+`)
			delete from mediafs.chunks c where c.drive_id = $1 and c.idx < 0 and `+kept),
		numbered(`select distinct c.blob from `+past,
			`insert into mediafs.chunks (drive_id, blob, idx, data)
				select $1, m.number, p.idx, p.data from numbered m join (select c.blob, c.idx, c.data from `+past+`) p using (blob)`),
		`delete from mediafs.chunks c using mediafs.nodes n, mediafs.drives d
			where c.drive_id = $1 and n.drive_id = $1 and d.drive_id = $1 and n.blob = c.blob and c.idx::bigint * d.chunk_size >= n.size`,
		`update mediafs.chunks c set data = substring(c.data for (n.size - c.idx::bigint * d.chunk_size)::integer) from mediafs.nodes n, mediafs.drives d
			where c.drive_id = $1 and n.drive_id = $1 and d.drive_id = $1 and n.blob = c.blob and c.idx::bigint * d.chunk_size + octet_length(c.data) > n.size`)
}

// orphanBlobs are those that no file has and that are not to be collected.
const orphanBlobs = `select c.blob, max(c.idx::bigint * d.chunk_size + octet_length(c.data)) as size
	from mediafs.chunks c join mediafs.drives d using (drive_id) where c.drive_id = $1
		and not exists (select from mediafs.nodes n where n.drive_id = $1 and n.blob = c.blob)
		and not exists (select from mediafs.removed r where r.drive_id = $1 and r.blob = c.blob)
	group by c.blob`

// rescueBlobs makes a file in lost+found of each blob that no file has.
func (r *repairer) rescueBlobs(ctx context.Context) error {
	if there, err := r.any(ctx, orphanBlobs); err != nil || !there {
		return err
	}
	if err := r.needLost(ctx); err != nil {
		return err
	}
	return r.do(ctx, numbered(orphanBlobs, fmt.Sprintf(`, named as (
			insert into mediafs.entries (drive_id, parent, position, ino, name)
			select $1, %d, number, number, %s from numbered)
		insert into mediafs.nodes `+madeColumns+`
			select $1, number, 0, blob, size, 32768 + 384, 1, 0, 0, null::bytea, `+r.times()+` from numbered`,
		r.lost, r.free(`convert_to(format('blob-%s', blob), 'UTF8')`, "number"))))
}

// needLost finds the folder lost+found in the root, or makes it; beside what has that name, if that is no folder.
func (r *repairer) needLost(ctx context.Context) error {
	if r.lost != 0 {
		return nil
	}
	err := r.tx.QueryRow(ctx, `select n.ino from mediafs.entries e join mediafs.nodes n on n.drive_id = $1 and n.ino = e.ino
		where e.drive_id = $1 and e.parent = 1 and e.name = $2 and n.mode & 61440 = 16384 and n.ino <> 1`, r.drive, []byte(lostAndFound)).Scan(&r.lost)
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return r.tx.QueryRow(ctx, numbered(`select convert_to('`+lostAndFound+`', 'UTF8') as name`, `, named as (
			insert into mediafs.entries (drive_id, parent, position, ino, name)
			select $1, 1, number, number, case when exists (select from mediafs.entries e where e.drive_id = $1 and e.parent = 1 and e.name = n.name)
				then name || convert_to(format('-%s', number), 'UTF8') else name end from numbered n)
		insert into mediafs.nodes `+madeColumns+`
			select $1, number, 1, 0, 0, 16384 + 448, 2, 0, 0, null::bytea, `+r.times()+` from numbered returning ino`), r.drive).Scan(&r.lost)
}

// free is an expression: a name, or if lost+found has that already, the name with a number that is nowhere else.
func (r *repairer) free(name, number string) string {
	return fmt.Sprintf(`case when exists (select from mediafs.entries o where o.drive_id = $1 and o.parent = %d and o.name = %s)
		then substring(%s for 230) || convert_to(format(' (%%s)', %s), 'UTF8') else %s end`, r.lost, name, name, number, name)
}

// rescueNames moves names without a place or without a node to lost+found, and makes the nodes that something is of but that are not there: a
// folder where there are names in it, an empty file where there are not.
func (r *repairer) rescueNames(ctx context.Context) error {
	const missing = `select m.ino, bool_or(m.folder) as folder from (
			select e.parent as ino, true as folder from mediafs.entries e where e.drive_id = $1
			union all select e.ino, false from mediafs.entries e where e.drive_id = $1
			union all select x.ino, false from mediafs.xattrs x where x.drive_id = $1) m
		where not exists (select from mediafs.nodes n where n.drive_id = $1 and n.ino = m.ino) group by m.ino`
	const isFolder = "exists (select from mediafs.nodes p where p.drive_id = $1 and p.ino = %s and p.mode & 61440 = 16384)"
	// A folder is where it says it is, or in the first place that it came to. The root is nowhere.
	const places = `select e.*, n.ino = 1 or row_number() over (partition by e.ino order by e.parent <> n.parent, e.position) > 1 as second
		from mediafs.entries e join mediafs.nodes n on n.drive_id = $1 and n.ino = e.ino where e.drive_id = $1 and n.mode & 61440 = 16384`
	const noContent = " || convert_to(' (no content)', 'UTF8')"
	for _, lost := range []struct {
		names string // whose
		name  string // what they are called in lost+found
		empty bool   // a new empty file has the name
	}{
		{`select e.parent, e.name from mediafs.entries e where e.drive_id = $1
			and not exists (select from mediafs.nodes n where n.drive_id = $1 and n.ino = e.ino)
			and not exists (select from mediafs.entries i where i.drive_id = $1 and i.parent = e.ino)`, "substring(m.name for 200)" + noContent, false},
		{`select p.parent, p.name from (` + places + `) p where p.second`, "substring(m.name for 200)" + noContent, true},
		{`select e.parent, e.name from mediafs.entries e where e.drive_id = $1
			and exists (select from mediafs.nodes p where p.drive_id = $1 and p.ino = e.parent) and not ` + fmt.Sprintf(isFolder, "e.parent"), "m.name", false},
		{`select e.parent, e.name from mediafs.entries e where e.drive_id = $1 and (position('\x2f'::bytea in e.name) > 0
			or position('\x00'::bytea in e.name) > 0 or e.name in ('\x2e', '\x2e2e'))`, "convert_to(format('ino-%s', m.ino), 'UTF8')", false},
	} {
		if err := r.moveNames(ctx, lost.names, lost.name, lost.empty); err != nil {
			return err
		}
	}
	return r.do(ctx, numbered(missing, `insert into mediafs.nodes `+madeColumns+`
		select $1, ino, 0, case when folder then 0 else number end, 0, case when folder then 16384 + 448 else 32768 + 384 end, 0, 0, 0, null::bytea, `+r.times()+` from numbered`))
}

// moveNames moves names, given as folder and name, to lost+found. With empty they stand for new empty files from then on.
func (r *repairer) moveNames(ctx context.Context, names, name string, empty bool) error {
	if there, err := r.any(ctx, names); err != nil || !there {
		return err
	}
	if err := r.needLost(ctx); err != nil {
		return err
	}
	ino, made := "e.ino", ""
	if empty {
		ino, made = "m.number", `, made as (insert into mediafs.nodes `+madeColumns+`
			select $1, number, 0, number, 0, 32768 + 384, 0, 0, 0, null::bytea, `+r.times()+` from numbered)`
	}
	// Of names that would be alike all but the first are numbered.
	return r.do(ctx, numbered(`select m.parent, m.name, m.wanted, row_number() over (partition by m.wanted order by m.parent, m.name) as nth from (
			select m.parent, m.name, `+name+` as wanted from mediafs.entries m join (`+names+`) l using (parent, name) where m.drive_id = $1) m`,
		made+fmt.Sprintf(`
		update mediafs.entries e set parent = %d, position = m.number, ino = %s, name = case when m.nth > 1
				then substring(m.wanted for 230) || convert_to(format(' (%%s)', m.number), 'UTF8') else %s end
			from numbered m where e.drive_id = $1 and e.parent = m.parent and e.name = m.name`, r.lost, ino, r.free("m.wanted", "m.number"))))
}

// settleParents has each folder say where it is.
func (r *repairer) settleParents(ctx context.Context) error {
	return r.do(ctx,
		`update mediafs.nodes n set parent = e.parent from mediafs.entries e
			where n.drive_id = $1 and e.drive_id = $1 and e.ino = n.ino and n.ino <> 1 and n.mode & 61440 = 16384 and n.parent <> e.parent`,
		`update mediafs.nodes set parent = 1 where drive_id = $1 and ino = 1 and parent <> 1`,
		`update mediafs.nodes set parent = 0 where drive_id = $1 and mode & 61440 <> 16384 and parent <> 0`)
}

// rescueNodes names nodes without a name in lost+found.
func (r *repairer) rescueNodes(ctx context.Context) error {
	const orphans = `select n.ino from mediafs.nodes n where n.drive_id = $1 and n.ino <> 1
		and not exists (select from mediafs.entries e where e.drive_id = $1 and e.ino = n.ino)
		and not (n.nlink = 0 and exists (select from mediafs.removed r where r.drive_id = $1 and r.ino = n.ino))`
	if there, err := r.any(ctx, orphans); err != nil || !there {
		return err
	}
	if err := r.needLost(ctx); err != nil {
		return err
	}
	return r.do(ctx, numbered(orphans, fmt.Sprintf(`, named as (
			insert into mediafs.entries (drive_id, parent, position, ino, name) select $1, %d, number, ino, %s from numbered)
		update mediafs.nodes n set parent = %d from numbered m where n.drive_id = $1 and n.ino = m.ino and n.mode & 61440 = 16384`,
		r.lost, r.free(`convert_to(format('ino-%s', ino), 'UTF8')`, "number"), r.lost)))
}

// breakRings moves a folder of each ring to lost+found, with all that is in it.
func (r *repairer) breakRings(ctx context.Context) error {
	var inos []int64
	err := eachRing(ctx, r.tx, r.drive, func(_ string, _ int32, ino int64) error {
		inos = append(inos, ino)
		return nil
	})
	if err != nil {
		return err
	}
	for _, ino := range inos {
		err := r.moveNames(ctx, fmt.Sprintf("select e.parent, e.name from mediafs.entries e where e.drive_id = $1 and e.ino = %d", ino), "m.name", false)
		if err != nil {
			return err
		}
	}
	return r.settleParents(ctx)
}

// touch sets the times of the folders that got names.
func (r *repairer) touch(ctx context.Context) error {
	if r.lost == 0 {
		return nil
	}
	return r.do(ctx, fmt.Sprintf(`update mediafs.nodes set mtime_ns = %d, ctime_ns = %d where drive_id = $1 and ino in (1, %d)`, r.nowNs, r.nowNs, r.lost))
}

// count sets right what is counted.
func (r *repairer) count(ctx context.Context) error {
	return r.do(ctx,
		`update mediafs.nodes n set nlink = c.nlink from (
				select m.ino, case when m.mode & 61440 = 16384 then 2 + coalesce(f.n, 0) else coalesce(e.n, 0) end as nlink from mediafs.nodes m
				left join (select ino, count(*) as n from mediafs.entries where drive_id = $1 group by ino) e on e.ino = m.ino
				left join (select i.parent, count(*) as n from mediafs.entries i join mediafs.nodes o on o.drive_id = $1 and o.ino = i.ino
					where i.drive_id = $1 and o.mode & 61440 = 16384 group by i.parent) f on f.parent = m.ino
				where m.drive_id = $1) c
			where n.drive_id = $1 and n.ino = c.ino and n.nlink <> c.nlink`,
		`update mediafs.nodes n set allocated = c.bytes from (
				select m.ino, coalesce(sum(octet_length(c.data)), 0) as bytes from mediafs.nodes m
				left join mediafs.chunks c on c.drive_id = $1 and c.blob = m.blob and m.blob <> 0 where m.drive_id = $1 group by m.ino) c
			where n.drive_id = $1 and n.ino = c.ino and n.allocated <> c.bytes`,
		`delete from mediafs.accesses a where a.drive_id = $1 and not exists (select from mediafs.nodes n where n.drive_id = $1 and n.ino = a.ino)`,
		`delete from mediafs.facts f where f.drive_id = $1 and not exists (select from mediafs.nodes n where n.drive_id = $1 and n.ino = f.ino)`,
		`update mediafs.accounts a set drive_id = (select o.drive_id from mediafs.drives o where o.owner = a.user_id)
			from mediafs.drives d where d.drive_id = $1 and a.drive_id = $1 and d.owner is distinct from a.user_id`,
		`insert into mediafs.usage (drive_id, slot) select $1, s from generate_series(0, 7) s on conflict do nothing`,
		`update mediafs.usage u set limited = false, bytes = u.bytes + n.bytes - s.bytes, nodes = u.nodes + n.nodes - s.nodes
			from (select sum(allocated) as bytes, count(*) filter (where ino <> 1) as nodes from mediafs.nodes where drive_id = $1) n,
				(select sum(bytes) as bytes, sum(nodes) as nodes from mediafs.usage where drive_id = $1) s
			where u.drive_id = $1 and u.slot = 0`,
		`update mediafs.usage u set limited = d.max_bytes > 0 or d.max_nodes > 0 from mediafs.drives d
			where u.drive_id = $1 and d.drive_id = $1 and u.limited <> (d.max_bytes > 0 or d.max_nodes > 0)`)
}

// appear has mounts of the drive know that another has changed it (sole.go).
func (r *repairer) appear(ctx context.Context) error {
	return r.do(ctx, "insert into mediafs.mounts (drive_id, mount_id, host) values ($1, gen_random_uuid(), 'mediafs check')")
}
