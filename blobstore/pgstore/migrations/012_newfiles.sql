-- New files are made together with their content, several at once.

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Makes files, also in several folders, each with its first name and its content; none if one of them can't be made. Each folder's times are when the
-- last name in it was taken (p_made), unless they were set since: then its ctime is later. p_blob are the numbers of the files that the chunks p_idx and
-- p_data are of, each from its first byte on. The order of locks is that of 002_operations.sql.
create function mediafs.make_files(p_drive integer, p_parent bigint[], p_name bytea[], p_made bigint[], p_ino bigint[], p_mode integer[],
	p_uid bigint[], p_gid bigint[], p_size bigint[], p_atime bigint[], p_mtime bigint[], p_ctime bigint[], p_blob bigint[], p_idx integer[], p_data bytea[])
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_n integer;
begin
	p_drive := mediafs.admit(p_drive);
	if p_parent[1] <> any (p_parent) then
		perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = any (p_parent) order by n.ino for update;
	end if;
	return query with p as (
		update mediafs.nodes n set mtime_ns = case when n.ctime_ns <= t.made then t.made else n.mtime_ns end, ctime_ns = greatest(n.ctime_ns, t.made)
			from (select f.parent, max(f.made) as made from unnest(p_parent, p_made) f (parent, made) group by f.parent) t
			where n.drive_id = p_drive and n.ino = t.parent and n.nlink > 0 and n.mode & 61440 = 16384
			returning n.ino),
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino)
		select p_drive, f.parent, f.name, f.ino, f.ino from unnest(p_parent, p_name, p_ino) f (parent, name, ino)),
	c as (insert into mediafs.chunks (drive_id, blob, idx, data)
		select p_drive, d.blob, d.idx, d.data from unnest(p_blob, p_idx, p_data) d (blob, idx, data)),
	u as (update mediafs.usage u set nodes = u.nodes + cardinality(p_ino),
			bytes = u.bytes + (select coalesce(sum(octet_length(d)), 0) from unnest(p_data) d)
		where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, size, allocated, atime_ns, mtime_ns, ctime_ns)
		select p_drive, f.ino, f.ino, f.mode, 1, f.uid, f.gid, f.size,
			(select coalesce(sum(octet_length(d.data)), 0) from unnest(p_blob, p_data) d (blob, data) where d.blob = f.ino),
			f.atime, f.mtime, f.ctime
		from unnest(p_parent, p_ino, p_mode, p_uid, p_gid, p_size, p_atime, p_mtime, p_ctime) f (parent, ino, mode, uid, gid, size, atime, mtime, ctime)
		join p on p.ino = f.parent
		returning *;
	get diagnostics v_n = row_count;
	if v_n < cardinality(p_ino) then
		perform mediafs.touch_folder(p_drive, f, 0, 0) from unnest(p_parent) f; -- says why not
	end if;
end $$;

revoke all on function mediafs.make_files(integer, bigint[], bytea[], bigint[], bigint[], integer[], bigint[], bigint[], bigint[], bigint[], bigint[],
	bigint[], bigint[], integer[], bytea[]) from public;
grant execute on function mediafs.make_files(integer, bigint[], bytea[], bigint[], bigint[], integer[], bigint[], bigint[], bigint[], bigint[], bigint[],
	bigint[], bigint[], integer[], bytea[]) to mediafs;

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;
