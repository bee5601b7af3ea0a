-- The operations that change a drive check the session once, not once for each table of each statement.
--
-- They run with the rights of mediafs_worker, which has policies of its own: rows of the drive in mediafs.checked, and of no other.
-- Each begins with mediafs.admit, which finds out that the session may change the drive p_drive and puts its number there. Anybody
-- can set mediafs.checked, but for nobody else does it mean anything: the mounting role's own statements stay under the policies that
-- ask for the session, and a function of the worker sets it anew before it touches anything. So a mistake in one of them still damages
-- the drive of the session alone.
--
-- Until admit has returned, names are found by the search_path of the caller: what comes before it, and the types of variables, names
-- the schema of everything. After it the path is pg_catalog, pg_temp to the end of the transaction.
--
-- They are few statements, each of several changes: what costs is a statement, not a row. Those changes are made in the order of locks
-- (see 002_operations.sql): what stands in WITH and is not read by others is done after all else, in the order it is written in. All parts
-- of a statement see the drive as it was when the statement began. Where it had to wait for somebody, that may not be enough: whatever
-- finds less than it looked for asks again, or leaves it to what takes the locks first.

grant usage on schema mediafs to mediafs_worker;

-- Whoever changes p_drive is let in here, or told why not. Gives p_drive.
create function mediafs.admit(p_drive integer) returns integer
language plpgsql security definer as $$
begin
	if pg_catalog.current_setting('mediafs.token', true) operator(pg_catalog.=) 'guest' then
		p_drive := mediafs.session_writable_drive(); -- says why not
	elsif mediafs.session_drive() operator(pg_catalog.<>) p_drive then
		-- Not MF404: see permitted_drive.
		raise exception 'mediafs: the session may not use this drive' using errcode = 'MF004';
	end if;
	if pg_catalog.current_setting('search_path') operator(pg_catalog.<>) 'pg_catalog, pg_temp' then
		perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	end if;
	return pg_catalog.set_config('mediafs.checked', p_drive::pg_catalog.text, true)::pg_catalog.int4;
end $$;
revoke all on function mediafs.admit(integer) from public;
grant execute on function mediafs.admit(integer) to mediafs_worker;

do $$
declare
	v_table text;
	c_own constant text := '(drive_id = current_setting(''mediafs.checked'')::integer)';
begin
	foreach v_table in array array['nodes', 'entries', 'chunks', 'xattrs', 'removed', 'mounts', 'usage'] loop
		execute format('create policy worker_select on mediafs.%I for select to mediafs_worker using %s', v_table, c_own);
		execute format('grant select on mediafs.%I to mediafs_worker', v_table);
	end loop;
	foreach v_table in array array['nodes', 'entries', 'chunks', 'xattrs', 'removed'] loop
		execute format('create policy worker_insert on mediafs.%I for insert to mediafs_worker with check %s', v_table, c_own);
		execute format('grant insert on mediafs.%I to mediafs_worker', v_table);
	end loop;
	foreach v_table in array array['nodes', 'entries', 'chunks', 'xattrs', 'usage'] loop
		execute format('create policy worker_update on mediafs.%I for update to mediafs_worker using %s with check (true)', v_table, c_own);
	end loop;
	foreach v_table in array array['nodes', 'entries', 'chunks', 'xattrs'] loop
		execute format('create policy worker_delete on mediafs.%I for delete to mediafs_worker using %s', v_table, c_own);
		execute format('grant delete on mediafs.%I to mediafs_worker', v_table);
	end loop;
end $$;
grant update (parent, blob, size, allocated, uid, gid, atime_ns, mtime_ns, ctime_ns, mode, nlink) on mediafs.nodes to mediafs_worker;
grant update (parent, position, ino, name) on mediafs.entries to mediafs_worker;
grant update (data) on mediafs.chunks to mediafs_worker;
grant update (value) on mediafs.xattrs to mediafs_worker;
grant update (bytes, nodes) on mediafs.usage to mediafs_worker;

drop function mediafs.make(integer, bigint, bytea, bigint, integer, bigint, bigint, bigint, bytea, bigint);
drop function mediafs.link(integer, bigint, bigint, bytea, bigint, integer, bigint);
drop function mediafs.unlink(integer, bigint, bytea, bigint, uuid, bigint[]);
drop function mediafs.drop_name(integer, bigint, bigint, uuid, bigint[]);
drop function mediafs.drop_folder(integer, bigint);
drop function mediafs.rmdir(integer, bigint, bytea, bigint);
drop function mediafs.rename(integer, bigint, bytea, bigint, bytea, integer, bigint, bigint, uuid, bigint[]);
drop function mediafs.put(integer, bigint, bigint, integer[], integer[], bytea[], bigint, bigint, bigint, bigint);
drop function mediafs.set_attr(integer, bigint, integer, integer, bigint, bigint, bigint, bigint, bigint, bigint, bigint, integer, uuid);
drop function mediafs.set_xattr(integer, bigint, bytea, bytea, integer, boolean, bigint);
drop function mediafs.zero_range(integer, bigint, bigint, bigint, bigint, bigint, integer);
drop function mediafs.remove_xattr(integer, bigint, bytea, boolean, bigint);

-- What they share is for the worker alone. Were it for the mounting role too, it could be called first with a search_path in which the types of
-- its variables are something else, and a session keeps a function as it was when it was first called. charge and zeros have no variables.

-- Takes one name from a node that is locked and is no folder. Without names the node goes at once with all that it has, if it is small, not
-- open here (p_open: the files this mount has open) and no other mount is alive; else it waits in mediafs.removed. Gives the node as it is
-- then. Other mounts are looked for last, when there is nobody left to wait for: one that came meanwhile may have opened the file.
create function mediafs.drop_name(p_drive integer, p_node mediafs.nodes, p_now bigint, p_mount uuid, p_open bigint[]) returns mediafs.nodes
language plpgsql as $$
begin
	if p_node.nlink = 1 and (p_node.blob = 0 or p_node.allocated <= 1048576 and p_node.ino <> all (p_open)) then
		with n as (
			delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_node.ino
				and (p_node.blob = 0 or not exists (select from mediafs.mounts m
					where m.drive_id = p_drive and m.mount_id <> p_mount and m.seen_at > now() - interval '60 s'))
			returning n.ino),
		x as (delete from mediafs.xattrs x using n where x.drive_id = p_drive and x.ino = n.ino),
		c as (delete from mediafs.chunks c using n where c.drive_id = p_drive and c.blob = p_node.blob and p_node.allocated > 0)
		update mediafs.usage u set bytes = u.bytes - p_node.allocated, nodes = u.nodes - 1 from n
			where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8;
		if found then
			p_node.nlink := 0;
			p_node.ctime_ns := p_now;
			return p_node;
		end if;
	end if;
	update mediafs.nodes n set nlink = n.nlink - 1, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_node.ino returning n.* into p_node;
	if p_node.nlink = 0 then
		insert into mediafs.removed (drive_id, blob, ino, mount_id) values (p_drive, p_node.blob, p_node.ino, p_mount);
	end if;
	return p_node;
end $$;

-- Takes away a folder that is locked, as whoever makes a name in it does.
create function mediafs.drop_folder(p_drive integer, p_ino bigint) returns void
language plpgsql as $$
begin
	-- In the order of the key, so that it is looked for there however few folders the planner believes in.
	if exists (select from mediafs.entries e where e.drive_id = p_drive and e.parent = p_ino order by e.drive_id, e.parent, e.name limit 1) then
		raise exception 'not empty' using errcode = 'MF039';
	end if;
	with n as (delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino),
	x as (delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino)
	update mediafs.usage u set nodes = u.nodes - 1 where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8;
end $$;

do $$
declare
	v_function regprocedure;
begin
	for v_function in select p.oid from pg_proc p where p.pronamespace = 'mediafs'::regnamespace
		and p.proname in ('touch_folder', 'drop_name', 'drop_folder', 'is_beneath', 'punch') loop
		execute format('revoke all on function %s from public', v_function);
		execute format('grant execute on function %s to mediafs_worker', v_function);
	end loop;
end $$;

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Makes a node and its first name. A node's first name has the node's own number as its position.
create function mediafs.make(p_drive integer, p_parent bigint, p_name bytea, p_ino bigint, p_mode integer, p_uid bigint,
	p_gid bigint, p_rdev bigint, p_target bytea, p_now bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return query with p as (
		update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now, nlink = n.nlink + (p_mode & 61440 = 16384)::integer
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384
			returning n.mode & 1024 as sgid, n.gid), -- S_ISGID: the group is inherited (inode_init_owner)
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino) select p_drive, p_parent, p_name, p_ino, p_ino from p),
	u as (update mediafs.usage u set nodes = u.nodes + 1 from p where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, parent, blob, mode, nlink, uid, gid, rdev, target, size, atime_ns, mtime_ns, ctime_ns)
		select p_drive, p_ino, case when p_mode & 61440 = 16384 then p_parent else 0 end, case when p_mode & 61440 = 32768 then p_ino else 0 end,
			case when p_mode & 61440 = 16384 then p_mode | p.sgid else p_mode end, 1 + (p_mode & 61440 = 16384)::integer, p_uid,
			case when p.sgid <> 0 then p.gid else p_gid end, p_rdev, p_target, coalesce(octet_length(p_target), 0), p_now, p_now, p_now from p
		returning *;
	if not found then
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_now); -- says why not
	end if;
end $$;

-- Makes a new file with its content: what make and put come to, but that the group is given. p_data are its chunks, each from its first byte on, p_idx
-- their numbers, each once; p_size is the size of the file. Its name was taken at p_made: the folder's times are that, unless they were set since: then
-- its ctime is later.
create function mediafs.make_file(p_drive integer, p_parent bigint, p_name bytea, p_ino bigint, p_mode integer, p_uid bigint, p_gid bigint,
	p_idx integer[], p_data bytea[], p_size bigint, p_made bigint, p_atime bigint, p_mtime bigint, p_ctime bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return query with p as (
		update mediafs.nodes n set mtime_ns = case when n.ctime_ns <= p_made then p_made else n.mtime_ns end, ctime_ns = greatest(n.ctime_ns, p_made)
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384
			returning (select coalesce(sum(octet_length(d)), 0) from unnest(p_data) d) as bytes),
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino) select p_drive, p_parent, p_name, p_ino, p_ino from p),
	c as (insert into mediafs.chunks (drive_id, blob, idx, data)
		select p_drive, p_ino, d.idx, d.data from p, unnest(p_idx, p_data) d (idx, data)),
	u as (update mediafs.usage u set bytes = u.bytes + p.bytes, nodes = u.nodes + 1 from p
		where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, size, allocated, atime_ns, mtime_ns, ctime_ns)
		select p_drive, p_ino, p_ino, p_mode, 1, p_uid, p_gid, p_size, p.bytes, p_atime, p_mtime, p_ctime from p
		returning *;
	if not found then
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_made); -- says why not
	end if;
end $$;

-- Does make_file for several files, also of several folders, or for none if one of them can't be made. p_blob are the numbers of the files that the
-- chunks p_idx and p_data are of.
create function mediafs.make_files(p_drive integer, p_parent bigint[], p_name bytea[], p_ino bigint[], p_mode integer[], p_uid bigint[], p_gid bigint[],
	p_size bigint[], p_made bigint[], p_atime bigint[], p_mtime bigint[], p_ctime bigint[], p_blob bigint[], p_idx integer[], p_data bytea[])
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_n integer;
begin
	p_drive := mediafs.admit(p_drive);
	perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = any (p_parent) order by n.ino for update;
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
		select p_drive, f.ino, f.ino, f.mode, 1, f.uid, f.gid, f.size, coalesce(d.bytes, 0), f.atime, f.mtime, f.ctime
		from unnest(p_parent, p_ino, p_mode, p_uid, p_gid, p_size, p_atime, p_mtime, p_ctime) f (parent, ino, mode, uid, gid, size, atime, mtime, ctime)
		join p on p.ino = f.parent
		left join (select d.blob, sum(octet_length(d.data)) as bytes from unnest(p_blob, p_data) d (blob, data) group by d.blob) d on d.blob = f.ino
		returning *;
	get diagnostics v_n = row_count;
	if v_n < cardinality(p_ino) then
		perform mediafs.touch_folder(p_drive, f, 0, 0) from unnest(p_parent) f; -- says why not
	end if;
end $$;

create function mediafs.link(p_drive integer, p_ino bigint, p_parent bigint, p_name bytea, p_position bigint, p_max integer, p_now bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
begin
	p_drive := mediafs.admit(p_drive);
	return query with p as (
		update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384 returning n.ino),
	l as (update mediafs.nodes n set nlink = n.nlink + 1, ctime_ns = p_now from p
		where n.drive_id = p_drive and n.ino = p_ino and n.nlink between 1 and p_max - 1 and n.mode & 61440 <> 16384 returning n.*),
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino) select p_drive, p_parent, p_name, p_position, l.ino from l)
	select * from l;
	if not found then
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
		select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino and n.nlink > 0;
		if not found then
			raise exception 'no such node' using errcode = 'MF404';
		elsif v_node.mode & 61440 = 16384 then
			raise exception 'is a folder' using errcode = 'MF013';
		end if;
		raise exception 'too many names' using errcode = 'MF031';
	end if;
end $$;

create function mediafs.unlink(p_drive integer, p_parent bigint, p_name bytea, p_now bigint, p_mount uuid, p_open bigint[])
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
begin
	p_drive := mediafs.admit(p_drive);
	with p as (
		update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384 returning n.ino),
	e as (delete from mediafs.entries e using p where e.drive_id = p_drive and e.parent = p.ino and e.name = p_name returning e.ino)
	select n.* into v_node from e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino for update of n;
	if not found then -- unless it came while this waited for the folder
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
		with e as (delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name returning e.ino)
		select n.* into v_node from e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino for update of n;
		if not found then
			raise exception 'no such name' using errcode = 'MF404';
		end if;
	end if;
	if v_node.mode & 61440 = 16384 then
		raise exception 'is a folder' using errcode = 'MF021';
	end if;
	return next mediafs.drop_name(p_drive, v_node, p_now, p_mount, p_open);
end $$;

create function mediafs.rmdir(p_drive integer, p_parent bigint, p_name bytea, p_now bigint) returns void
language plpgsql security definer as $$
declare
	v_ino bigint;
	v_mode integer;
begin
	p_drive := mediafs.admit(p_drive);
	with p as (
		update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now, nlink = n.nlink - 1
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384 returning n.ino),
	e as (delete from mediafs.entries e using p where e.drive_id = p_drive and e.parent = p.ino and e.name = p_name returning e.ino)
	select n.ino, n.mode into v_ino, v_mode from e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino for update of n;
	if not found then -- unless it came while this waited for the folder
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
		with e as (delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name returning e.ino)
		select n.ino, n.mode into v_ino, v_mode from e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino for update of n;
		if not found then
			raise exception 'no such name' using errcode = 'MF404';
		end if;
	end if;
	if v_mode & 61440 <> 16384 then
		raise exception 'not a folder' using errcode = 'MF020';
	end if;
	perform mediafs.drop_folder(p_drive, v_ino);
end $$;

-- Moves a name. p_mode: 0 replace, 1 the new name must be free, 2 exchange. Gives what lost its name, if anything did.
create function mediafs.rename(p_drive integer, p_parent bigint, p_name bytea, p_new_parent bigint, p_new_name bytea,
	p_mode integer, p_position bigint, p_now bigint, p_mount uuid, p_open bigint[])
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_from mediafs.nodes;
	v_to mediafs.nodes;
	v_found boolean;
	v_from_folder integer;
	v_to_folder integer := 0;
	v_parents integer;
	v_others integer;
begin
	p_drive := mediafs.admit(p_drive);
	-- Within a folder and to a free name, if nobody has changed the folder since the statement began: it would not see what names came.
	if p_parent = p_new_parent and p_mode < 2 then
		with p as (
			update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now
				where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384
					and n.ctid = (select o.ctid from mediafs.nodes o where o.drive_id = p_drive and o.ino = p_parent)
					and exists (select from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name)
					and not exists (select from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_new_name)
				returning n.ino),
		e as (update mediafs.entries e set name = p_new_name, position = p_position from p
			where e.drive_id = p_drive and e.parent = p.ino and e.name = p_name returning e.ino)
		update mediafs.nodes n set ctime_ns = p_now from e where n.drive_id = p_drive and n.ino = e.ino;
		if found then
			return;
		end if;
	end if;

	-- A folder that moves to another one changes what is above what: one at a time in a drive, by the root's row, so that
	-- two of them can't close a ring.
	if p_parent <> p_new_parent then
		perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = 1 and exists (
			select from mediafs.entries e join mediafs.nodes m on m.drive_id = p_drive and m.ino = e.ino
			where e.drive_id = p_drive and m.mode & 61440 = 16384
				and (e.parent = p_parent and e.name = p_name or p_mode = 2 and e.parent = p_new_parent and e.name = p_new_name))
			for update;
	end if;
	select count(*), count(*) filter (where p.mode & 61440 <> 16384) into v_parents, v_others from (
		select n.mode from mediafs.nodes n where n.drive_id = p_drive and n.ino in (p_parent, p_new_parent) and n.nlink > 0
		order by n.ino for update) p;
	if v_others > 0 then
		raise exception 'not a folder' using errcode = 'MF020';
	elsif v_parents < 2 - (p_parent = p_new_parent)::integer then
		raise exception 'no such folder' using errcode = 'MF404';
	end if;

	select n.* into v_from from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
		where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
	if not found then
		raise exception 'no such name' using errcode = 'MF404';
	end if;
	v_from_folder := (v_from.mode & 61440 = 16384)::integer;
	select n.* into v_to from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
		where e.drive_id = p_drive and e.parent = p_new_parent and e.name = p_new_name;
	v_found := found;
	if v_found then
		v_to_folder := (v_to.mode & 61440 = 16384)::integer;
		if p_mode = 1 then
			raise exception 'exists' using errcode = 'MF409';
		elsif v_from.ino = v_to.ino then
			return; -- two names of one node: rename(2) does nothing
		elsif p_mode = 0 and v_to_folder = 1 and mediafs.is_beneath(p_drive, p_parent, v_to.ino) then
			raise exception 'not empty' using errcode = 'MF039';
		elsif p_mode = 0 and v_from_folder > v_to_folder then
			raise exception 'not a folder' using errcode = 'MF020';
		elsif p_mode = 0 and v_from_folder < v_to_folder then
			raise exception 'is a folder' using errcode = 'MF021';
		end if;
	elsif p_mode = 2 then
		raise exception 'no such name' using errcode = 'MF404';
	end if;
	if v_from_folder = 1 and mediafs.is_beneath(p_drive, p_new_parent, v_from.ino)
		or p_mode = 2 and v_to_folder = 1 and mediafs.is_beneath(p_drive, p_parent, v_to.ino) then
		raise exception 'into itself' using errcode = 'MF022';
	end if;

	if p_mode = 2 then
		update mediafs.entries e set ino = v_to.ino where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
		update mediafs.entries e set ino = v_from.ino where e.drive_id = p_drive and e.parent = p_new_parent and e.name = p_new_name;
		update mediafs.nodes n set ctime_ns = p_now,
			parent = case when n.parent = 0 then 0 when n.ino = v_from.ino then p_new_parent else p_parent end
			where n.drive_id = p_drive and n.ino in (v_from.ino, v_to.ino);
		if p_parent = p_new_parent then
			perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
		else
			perform mediafs.touch_folder(p_drive, p_parent, v_to_folder - v_from_folder, p_now);
			perform mediafs.touch_folder(p_drive, p_new_parent, v_from_folder - v_to_folder, p_now);
		end if;
		return;
	end if;

	if v_found then
		select n.* into v_to from mediafs.nodes n where n.drive_id = p_drive and n.ino = v_to.ino for update;
		delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_new_parent and e.name = p_new_name;
		if v_to_folder = 1 then
			perform mediafs.drop_folder(p_drive, v_to.ino);
		else
			return next mediafs.drop_name(p_drive, v_to, p_now, p_mount, p_open);
		end if;
	end if;
	with e as (
		update mediafs.entries e set parent = p_new_parent, name = p_new_name, position = p_position
			where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name)
	update mediafs.nodes n set
		ctime_ns = p_now,
		mtime_ns = case when n.ino = v_from.ino then n.mtime_ns else p_now end,
		parent = case when n.ino <> v_from.ino then n.parent when v_from_folder = 1 then p_new_parent else 0 end,
		nlink = n.nlink + case when n.ino = v_from.ino then 0
			else (n.ino = p_new_parent)::integer * (v_from_folder - v_to_folder) - (n.ino = p_parent)::integer * v_from_folder end
		where n.drive_id = p_drive and n.ino in (p_parent, p_new_parent, v_from.ino);
end $$;

-- Stores pieces of a blob, then the size and the times that go with them, in one transaction. The pieces come in the order of
-- p_idx. p_off is where in the chunk a piece begins; -1 where it is the whole chunk; -2 where it begins the chunk and reaches the
-- end of the file, if that is p_known bytes long. p_size is where the last piece ends: the file never gets shorter here.
-- p_mtime null leaves mtime as it is.
create function mediafs.put(p_drive integer, p_ino bigint, p_blob bigint, p_idx integer[], p_off integer[], p_data bytea[],
	p_size bigint, p_known bigint, p_mtime bigint, p_ctime bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
	v_before bigint := 0;
	v_after bigint := 0;
	v_chunk pg_catalog.bytea;
	v_i integer := 1;
	v_n integer;
	v_done integer[]; -- chunks that are stored before the loop
begin
	p_drive := mediafs.admit(p_drive);
	v_done := '{}';
	v_n := coalesce(array_length(p_idx, 1), 0);
	if v_n = 1 and p_off[1] < 0 then -- the first chunk of a file that has none
		return query with n as (
			update mediafs.nodes n
				set size = greatest(n.size, p_size), allocated = octet_length(p_data[1]),
					mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime)
				where n.drive_id = p_drive and n.ino = p_ino and n.blob = p_blob and n.allocated = 0 and n.size <= p_known
				returning n.*),
		c as (insert into mediafs.chunks (drive_id, blob, idx, data) select p_drive, p_blob, p_idx[1], p_data[1] from n),
		u as (update mediafs.usage u set bytes = u.bytes + n.allocated from n where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
		select * from n;
		if found then
			return;
		end if;
	end if;
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found or v_node.blob <> p_blob then
		raise exception 'the blob was replaced' using errcode = 'MF116';
	end if;
	if v_node.size > p_known then -- another mount wrote: what was the tail may not be
		p_off := array_replace(p_off, -2, 0);
	end if;
	if v_n > 0 and v_node.allocated > 0 then
		select coalesce(sum(octet_length(c.data)), 0) into v_before from mediafs.chunks c
			where c.drive_id = p_drive and c.blob = p_blob and c.idx = any (p_idx);
	end if;
	if v_before > 0 and 0 <= any (p_off) then
		with stored as (
			update mediafs.chunks c set data = overlay(c.data placing d.data from d.off + 1)
				from (select p.idx, p.off, p.data, count(*) over (partition by p.idx) as pieces
					from unnest(p_idx, p_off, p_data) p (idx, off, data)) d
				where c.drive_id = p_drive and c.blob = p_blob and c.idx = d.idx
					and d.pieces = 1 and d.off >= 0 and d.off <= octet_length(c.data)
				returning c.idx, octet_length(c.data) as length)
		select coalesce(array_agg(s.idx), '{}'), coalesce(sum(s.length), 0) into v_done, v_after from stored s;
	end if;
	-- What takes a loop: chunks that are not there yet, are too short for where the piece begins, or have several pieces.
	while v_i <= v_n loop
		if p_off[v_i] < 0 or p_idx[v_i] = any (v_done) then
			v_i := v_i + 1;
			continue;
		end if;
		select c.data into v_chunk from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob and c.idx = p_idx[v_i];
		if not found then
			v_chunk := '';
		end if;
		loop
			if octet_length(v_chunk) < p_off[v_i] then
				v_chunk := v_chunk || mediafs.zeros(p_off[v_i] - octet_length(v_chunk));
			end if;
			v_chunk := overlay(v_chunk placing p_data[v_i] from p_off[v_i] + 1);
			exit when v_i = v_n or p_idx[v_i + 1] <> p_idx[v_i];
			v_i := v_i + 1;
		end loop;
		insert into mediafs.chunks as c (drive_id, blob, idx, data) values (p_drive, p_blob, p_idx[v_i], v_chunk)
			on conflict (drive_id, blob, idx) do update set data = excluded.data;
		v_after := v_after + octet_length(v_chunk);
		v_i := v_i + 1;
	end loop;
	return query with c as (
		insert into mediafs.chunks as c (drive_id, blob, idx, data)
			select p_drive, p_blob, d.idx, d.data from unnest(p_idx, p_off, p_data) d (idx, off, data) where d.off < 0
			on conflict (drive_id, blob, idx) do update set data = excluded.data
			returning octet_length(c.data) as bytes),
	s as (select coalesce(sum(c.bytes), 0) + v_after - v_before as bytes from c),
	u as (update mediafs.usage u set bytes = u.bytes + s.bytes from s where s.bytes <> 0 and u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	update mediafs.nodes n
		set size = greatest(n.size, p_size), allocated = n.allocated + s.bytes,
			mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime)
		from s where n.drive_id = p_drive and n.ino = p_ino returning n.*;
end $$;

-- Changes attributes. p_set: the bits of blobstore.AttrSet. p_blob: a fresh number for the content if it is cut to nothing.
create function mediafs.set_attr(p_drive integer, p_ino bigint, p_set integer, p_mode integer, p_uid bigint, p_gid bigint,
	p_size bigint, p_atime bigint, p_mtime bigint, p_now bigint, p_blob bigint, p_chunk integer, p_mount uuid)
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
	v_lost bigint := 0;
begin
	p_drive := mediafs.admit(p_drive);
	if p_set & 72 = 0 then
		return query update mediafs.nodes n
			set mode = case when p_set & 1 <> 0 then (n.mode & 61440) | (p_mode & 4095) else n.mode end,
				uid = case when p_set & 2 <> 0 then p_uid else n.uid end,
				gid = case when p_set & 4 <> 0 then p_gid else n.gid end,
				atime_ns = case when p_set & 16 <> 0 then p_atime else n.atime_ns end,
				mtime_ns = case when p_set & 32 <> 0 then p_mtime else n.mtime_ns end,
				ctime_ns = p_now
			where n.drive_id = p_drive and n.ino = p_ino returning *;
		if not found then
			raise exception 'no such node' using errcode = 'MF404';
		end if;
		return;
	end if;
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	if p_set & 8 <> 0 then
		if v_node.mode & 61440 = 16384 then
			raise exception 'is a folder' using errcode = 'MF021';
		elsif v_node.mode & 61440 <> 32768 then
			raise exception 'not a regular file' using errcode = 'MF022';
		end if;
		if p_size = 0 and v_node.allocated > 1048576 and v_node.nlink > 0 then
			insert into mediafs.removed (drive_id, blob, mount_id) values (p_drive, v_node.blob, p_mount);
			v_node.blob := p_blob;
			v_lost := v_node.allocated;
		elsif p_size < v_node.size and v_node.allocated > 0 then
			v_lost := mediafs.punch(p_drive, v_node.blob, p_size, v_node.size, p_chunk);
		end if;
		v_node.mtime_ns := p_now;
		v_node.size := p_size;
		v_node.allocated := v_node.allocated - v_lost;
		if v_lost <> 0 then
			perform mediafs.charge(p_drive, -v_lost, 0);
		end if;
	end if;
	if p_set & 1 <> 0 then v_node.mode := (v_node.mode & 61440) | (p_mode & 4095); end if;
	if p_set & 2 <> 0 then v_node.uid := p_uid; end if;
	if p_set & 4 <> 0 then v_node.gid := p_gid; end if;
	if p_set & 16 <> 0 then v_node.atime_ns := p_atime; end if;
	if p_set & 32 <> 0 then v_node.mtime_ns := p_mtime; end if;
	if p_set & 64 <> 0 and v_node.mode & 61440 = 32768 then -- blobstore.DropPriv
		v_node.mode := v_node.mode & ~2048;
		if v_node.mode & 8 <> 0 then v_node.mode := v_node.mode & ~1024; end if;
	end if;
	return query update mediafs.nodes n
		set mode = v_node.mode, uid = v_node.uid, gid = v_node.gid, size = v_node.size, allocated = v_node.allocated,
			blob = v_node.blob, atime_ns = v_node.atime_ns, mtime_ns = v_node.mtime_ns, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- Empties a range and sets the size that goes with it.
create function mediafs.zero_range(p_drive integer, p_ino bigint, p_from bigint, p_to bigint, p_size bigint, p_now bigint, p_chunk integer)
returns setof mediafs.nodes
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
	v_lost bigint;
begin
	p_drive := mediafs.admit(p_drive);
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	v_lost := mediafs.punch(p_drive, v_node.blob, p_from, least(p_to, v_node.size), p_chunk);
	perform mediafs.charge(p_drive, -v_lost, 0);
	return query update mediafs.nodes n
		set size = greatest(n.size, p_size), allocated = n.allocated - v_lost, mtime_ns = p_now, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- p_mode: 0 set, 1 must not be there, 2 must be there. p_open: the caller has the node open, so it need not have a name.
create function mediafs.set_xattr(p_drive integer, p_ino bigint, p_name bytea, p_value bytea, p_mode integer, p_open boolean, p_now bigint) returns void
language plpgsql security definer as $$
declare
	v_there boolean;
	v_names bigint; -- bytes that listxattr(2) returns
begin
	p_drive := mediafs.admit(p_drive);
	update mediafs.nodes n set ctime_ns = p_now where n.drive_id = p_drive and n.ino = p_ino and (n.nlink > 0 or p_open);
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	select coalesce(bool_or(x.name = p_name), false), coalesce(sum(octet_length(x.name) + 1), 0) into v_there, v_names
		from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino;
	if p_mode = 1 and v_there then
		raise exception 'exists' using errcode = 'MF409';
	elsif p_mode = 2 and not v_there then
		raise exception 'no such attribute' using errcode = 'MF061';
	elsif not v_there and v_names + octet_length(p_name) + 1 > 65536 then
		raise exception 'more names than listxattr(2) can return' using errcode = 'MF028'; -- XATTR_LIST_MAX of limits.h
	end if;
	insert into mediafs.xattrs as x (drive_id, ino, name, value) values (p_drive, p_ino, p_name, p_value)
		on conflict (drive_id, ino, name) do update set value = excluded.value;
end $$;

create function mediafs.remove_xattr(p_drive integer, p_ino bigint, p_name bytea, p_open boolean, p_now bigint) returns void
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	update mediafs.nodes n set ctime_ns = p_now where n.drive_id = p_drive and n.ino = p_ino and (n.nlink > 0 or p_open);
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino and x.name = p_name;
	if not found then
		raise exception 'no such attribute' using errcode = 'MF061';
	end if;
end $$;

do $$
declare
	v_function regprocedure;
begin
	for v_function in select p.oid from pg_proc p where p.pronamespace = 'mediafs'::regnamespace and p.proowner = 'mediafs_worker'::regrole loop
		execute format('revoke all on function %s from public', v_function);
		execute format('grant execute on function %s to mediafs', v_function);
	end loop;
end $$;

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;
