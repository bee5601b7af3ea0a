-- The operations that are more than one statement, so that each is one round trip and one transaction. They run with the
-- rights of the mount that calls them, under the policies: they are for speed and order, not for protection.
--
-- Locks are taken in one order: folders by ino, then other nodes, then chunks, then usage. Error codes are read by
-- package pgstore: MF404 not there, MF409 there already, MF013 not permitted, MF020 not a folder, MF021 is a folder, MF039 not empty, MF022 invalid,
-- MF028 no space, MF031 too many names, MF061 no such extended attribute, MF116 the blob was replaced meanwhile.

create function mediafs.charge(p_drive integer, p_bytes bigint, p_nodes bigint) returns void
language plpgsql as $$
begin
	if p_bytes <> 0 or p_nodes <> 0 then
		update mediafs.usage u set bytes = u.bytes + p_bytes, nodes = u.nodes + p_nodes
		where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8;
	end if;
end $$;

-- Sets the times of a folder in which names change, and counts folders in it. Gives its mode and group.
create function mediafs.touch_folder(p_drive integer, p_ino bigint, p_folders integer, p_now bigint,
	out o_mode integer, out o_gid bigint)
language plpgsql as $$
begin
	update mediafs.nodes n
	set mtime_ns = p_now, ctime_ns = p_now, nlink = n.nlink + p_folders
	where n.drive_id = p_drive and n.ino = p_ino and n.nlink > 0
	returning n.mode, n.gid into o_mode, o_gid;
	if not found then
		raise exception 'no such folder' using errcode = 'MF404';
	elsif o_mode & 61440 <> 16384 then
		raise exception 'not a folder' using errcode = 'MF020';
	end if;
end $$;

-- Makes a node and its first name. A node's first name has the node's own number as its position.
create function mediafs.make(p_drive integer, p_parent bigint, p_name bytea, p_ino bigint, p_mode integer, p_uid bigint,
	p_gid bigint, p_rdev bigint, p_target bytea, p_now bigint)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_folder boolean := p_mode & 61440 = 16384;
	v_mode integer := p_mode;
	v_parent record;
begin
	select * into v_parent from mediafs.touch_folder(p_drive, p_parent, v_folder::integer, p_now);
	if v_parent.o_mode & 1024 <> 0 then -- S_ISGID: the group is inherited (inode_init_owner)
		p_gid := v_parent.o_gid;
		if v_folder then
			v_mode := v_mode | 1024;
		end if;
	end if;
	insert into mediafs.entries (drive_id, parent, name, position, ino) values (p_drive, p_parent, p_name, p_ino, p_ino);
	perform mediafs.charge(p_drive, 0, 1);
	return query insert into mediafs.nodes
		(drive_id, ino, parent, blob, mode, nlink, uid, gid, rdev, target, size, atime_ns, mtime_ns, ctime_ns)
		values (p_drive, p_ino, case when v_folder then p_parent else 0 end, case when p_mode & 61440 = 32768 then p_ino else 0 end,
			v_mode, case when v_folder then 2 else 1 end, p_uid, p_gid, p_rdev, p_target,
			coalesce(octet_length(p_target), 0), p_now, p_now, p_now)
		returning *;
end $$;

create function mediafs.link(p_drive integer, p_ino bigint, p_parent bigint, p_name bytea, p_position bigint, p_max integer, p_now bigint)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
begin
	perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
	update mediafs.nodes n set nlink = n.nlink + 1, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino and n.nlink > 0 returning n.* into v_node;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	elsif v_node.mode & 61440 = 16384 then
		raise exception 'is a folder' using errcode = 'MF013';
	elsif v_node.nlink > p_max then
		raise exception 'too many names' using errcode = 'MF031';
	end if;
	insert into mediafs.entries (drive_id, parent, name, position, ino) values (p_drive, p_parent, p_name, p_position, p_ino);
	return next v_node;
end $$;

-- Takes one name from a node that is no folder. Without names the node goes at once if it is small, not open here (p_open: the
-- files this mount has open) and no other mount is alive; else it waits in mediafs.removed. Gives the node as it is then.
create function mediafs.drop_name(p_drive integer, p_ino bigint, p_now bigint, p_mount uuid, p_open bigint[])
returns mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
begin
	update mediafs.nodes n set nlink = n.nlink - 1, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino returning n.* into v_node;
	if v_node.nlink > 0 then
		return v_node;
	end if;
	if v_node.mode & 61440 = 32768 and (v_node.allocated > 1048576 or p_ino = any (p_open) or exists (
		select from mediafs.mounts m where m.drive_id = p_drive and m.mount_id <> p_mount and m.seen_at > now() - interval '60 s')) then
		insert into mediafs.removed (drive_id, blob, ino, mount_id) values (p_drive, v_node.blob, p_ino, p_mount);
	else
		delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino;
		delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino;
		if v_node.allocated > 0 then
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_node.blob;
		end if;
		perform mediafs.charge(p_drive, -v_node.allocated, -1);
	end if;
	return v_node;
end $$;

create function mediafs.unlink(p_drive integer, p_parent bigint, p_name bytea, p_now bigint, p_mount uuid, p_open bigint[])
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_ino bigint;
	v_node mediafs.nodes;
begin
	perform mediafs.touch_folder(p_drive, p_parent, 0, p_now);
	delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name returning e.ino into v_ino;
	if not found then
		raise exception 'no such name' using errcode = 'MF404';
	end if;
	v_node := mediafs.drop_name(p_drive, v_ino, p_now, p_mount, p_open);
	if v_node.mode & 61440 = 16384 then
		raise exception 'is a folder' using errcode = 'MF021';
	end if;
	return next v_node;
end $$;

-- Takes away a folder that is empty. Its row is locked first, as whoever makes a name in it does.
create function mediafs.drop_folder(p_drive integer, p_ino bigint) returns void
language plpgsql as $$
begin
	perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if exists (select from mediafs.entries e where e.drive_id = p_drive and e.parent = p_ino) then
		raise exception 'not empty' using errcode = 'MF039';
	end if;
	delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino;
	delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino;
	perform mediafs.charge(p_drive, 0, -1);
end $$;

create function mediafs.rmdir(p_drive integer, p_parent bigint, p_name bytea, p_now bigint) returns void
language plpgsql as $$
declare
	v_ino bigint;
	v_mode integer;
begin
	perform mediafs.touch_folder(p_drive, p_parent, -1, p_now);
	select n.ino, n.mode into v_ino, v_mode from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
		where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
	if not found then
		raise exception 'no such name' using errcode = 'MF404';
	elsif v_mode & 61440 <> 16384 then
		raise exception 'not a folder' using errcode = 'MF020';
	end if;
	perform mediafs.drop_folder(p_drive, v_ino);
	delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name and e.ino = v_ino;
	if not found then -- renamed meanwhile
		raise exception 'no such name' using errcode = 'MF404';
	end if;
end $$;

-- Whether a folder is another or somewhere in it.
create function mediafs.is_beneath(p_drive integer, p_ino bigint, p_above bigint) returns boolean
language plpgsql stable as $$
begin
	while p_ino <> p_above and p_ino <> 1 loop
		select n.parent into strict p_ino from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino;
	end loop;
	return p_ino = p_above;
end $$;

-- Moves a name. p_mode: 0 replace, 1 the new name must be free, 2 exchange. Gives what lost its name, if anything did.
create function mediafs.rename(p_drive integer, p_parent bigint, p_name bytea, p_new_parent bigint, p_new_name bytea,
	p_mode integer, p_position bigint, p_now bigint, p_mount uuid, p_open bigint[])
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_from record;
	v_to record;
	v_found boolean;
	v_from_folder integer;
	v_to_folder integer := 0;
	v_parents integer;
	v_others integer;
begin
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

	select n.ino, n.mode into v_from from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
		where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
	if not found then
		raise exception 'no such name' using errcode = 'MF404';
	end if;
	v_from_folder := (v_from.mode & 61440 = 16384)::integer;
	select n.ino, n.mode into v_to from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
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
		delete from mediafs.entries e where e.drive_id = p_drive and e.parent = p_new_parent and e.name = p_new_name;
		if v_to_folder = 1 then
			perform mediafs.drop_folder(p_drive, v_to.ino);
		else
			return next mediafs.drop_name(p_drive, v_to.ino, p_now, p_mount, p_open);
		end if;
	end if;
	update mediafs.entries e set parent = p_new_parent, name = p_new_name, position = p_position
		where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
	update mediafs.nodes n set ctime_ns = p_now,
		parent = case when v_from_folder = 1 then p_new_parent else 0 end
		where n.drive_id = p_drive and n.ino = v_from.ino;
	if p_parent = p_new_parent then
		perform mediafs.touch_folder(p_drive, p_parent, -v_to_folder, p_now);
	else
		perform mediafs.touch_folder(p_drive, p_parent, -v_from_folder, p_now);
		perform mediafs.touch_folder(p_drive, p_new_parent, v_from_folder - v_to_folder, p_now);
	end if;
end $$;

-- Content ------------------------------------------------------------------------------------------------------------------

-- p_n zero bytes.
create function mediafs.zeros(p_n integer) returns bytea
language sql immutable strict as $$ select decode(repeat('00', greatest(p_n, 0)), 'hex') $$;

-- Stores pieces of a blob, then the size and the times that go with them, in one transaction. The pieces come in the order of
-- p_idx. p_off is where in the chunk a piece begins; -1 where it is the whole chunk; -2 where it begins the chunk and reaches the
-- end of the file, if that is p_known bytes long. p_size is where the last piece ends: the file never gets shorter here.
-- p_mtime null leaves mtime as it is.
create function mediafs.put(p_drive integer, p_ino bigint, p_blob bigint, p_idx integer[], p_off integer[], p_data bytea[],
	p_size bigint, p_known bigint, p_mtime bigint, p_ctime bigint)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
	v_before bigint := 0;
	v_after bigint := 0;
	v_chunk bytea;
	v_i integer := 1;
	v_n integer := coalesce(array_length(p_idx, 1), 0);
begin
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found or v_node.blob <> p_blob then
		raise exception 'the blob was replaced' using errcode = 'MF116';
	end if;
	if v_node.size > p_known then -- another mount wrote: what was the tail may not be
		p_off := array_replace(p_off, -2, 0);
	end if;
	if v_n > 0 then
		if v_node.allocated > 0 then
			select coalesce(sum(octet_length(c.data)), 0) into v_before from mediafs.chunks c
				where c.drive_id = p_drive and c.blob = p_blob and c.idx = any (p_idx);
		end if;
		if -1 = any (p_off) or -2 = any (p_off) then
			insert into mediafs.chunks as c (drive_id, blob, idx, data)
				select p_drive, p_blob, u.idx, u.data from unnest(p_idx, p_off, p_data) u (idx, off, data) where u.off < 0
				on conflict (drive_id, blob, idx) do update set data = excluded.data;
		end if;
	end if;
	while v_i <= v_n loop
		if p_off[v_i] < 0 then
			v_after := v_after + octet_length(p_data[v_i]);
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
	perform mediafs.charge(p_drive, v_after - v_before, 0);
	return query update mediafs.nodes n
		set size = greatest(n.size, p_size), allocated = n.allocated + v_after - v_before,
			mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime)
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- Takes the bytes [p_from, p_to) out of a blob whose node is locked. Gives how many bytes its chunks lost.
create function mediafs.punch(p_drive integer, p_blob bigint, p_from bigint, p_to bigint, p_chunk integer) returns bigint
language plpgsql as $$
declare
	v_first integer := ((p_from + p_chunk - 1) / p_chunk)::integer; -- the first chunk that goes whole
	v_last integer := least(p_to / p_chunk, 2147483647)::integer;    -- the first that does not
	v_lost bigint := 0;
	v_edge record;
	v_from integer;
	v_to integer;
	v_data bytea;
begin
	for v_edge in select c.idx, c.data from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob
		and c.idx in ((p_from / p_chunk)::integer, v_last) and (c.idx < v_first or c.idx >= v_last) loop
		v_from := greatest(p_from - v_edge.idx::bigint * p_chunk, 0);
		v_to := least(p_to - v_edge.idx::bigint * p_chunk, octet_length(v_edge.data));
		continue when v_from >= v_to;
		if v_to = octet_length(v_edge.data) then
			v_data := substring(v_edge.data for v_from);
		else
			v_data := overlay(v_edge.data placing mediafs.zeros(v_to - v_from) from v_from + 1);
		end if;
		v_lost := v_lost + octet_length(v_edge.data) - octet_length(v_data);
		if v_data = '' then
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob and c.idx = v_edge.idx;
		else
			update mediafs.chunks c set data = v_data where c.drive_id = p_drive and c.blob = p_blob and c.idx = v_edge.idx;
		end if;
	end loop;
	with gone as (
		delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob and c.idx >= v_first and c.idx < v_last
		returning octet_length(c.data) as n)
	select v_lost + coalesce(sum(n), 0) into v_lost from gone;
	return v_lost;
end $$;

-- Changes attributes. p_set: the bits of blobstore.AttrSet. p_blob: a fresh number for the content if it is cut to nothing.
create function mediafs.set_attr(p_drive integer, p_ino bigint, p_set integer, p_mode integer, p_uid bigint, p_gid bigint,
	p_size bigint, p_atime bigint, p_mtime bigint, p_now bigint, p_blob bigint, p_chunk integer, p_mount uuid)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
	v_lost bigint := 0;
begin
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
		perform mediafs.charge(p_drive, -v_lost, 0);
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
language plpgsql as $$
declare
	v_node mediafs.nodes;
	v_lost bigint;
begin
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

-- Copies whole chunks between blobs: p_n chunks of p_from_blob from p_from_idx on, to p_to_idx on. The range that is written is
-- replaced, holes included; p_size is where it ends.
create function mediafs.copy_chunks(p_drive integer, p_from_blob bigint, p_from_idx integer, p_n integer, p_ino bigint,
	p_to_idx integer, p_size bigint, p_now bigint)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
	v_lost bigint;
	v_got bigint;
begin
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	with gone as (
		delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_node.blob
			and c.idx >= p_to_idx and c.idx < p_to_idx + p_n
		returning octet_length(c.data) as n)
	select coalesce(sum(n), 0) into v_lost from gone;
	with got as (
		insert into mediafs.chunks (drive_id, blob, idx, data)
			select p_drive, v_node.blob, c.idx - p_from_idx + p_to_idx, c.data from mediafs.chunks c
			where c.drive_id = p_drive and c.blob = p_from_blob and c.idx >= p_from_idx and c.idx < p_from_idx + p_n
		returning octet_length(data) as n)
	select coalesce(sum(n), 0) into v_got from got;
	perform mediafs.charge(p_drive, v_got - v_lost, 0);
	return query update mediafs.nodes n
		set size = greatest(n.size, p_size), allocated = n.allocated + v_got - v_lost, mtime_ns = p_now, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- The next chunk at or after p_idx that is there (p_hole false) or missing (true). Null: none is there.
create function mediafs.seek_chunk(p_drive integer, p_blob bigint, p_idx integer, p_hole boolean) returns integer
language plpgsql stable as $$
declare
	v_next integer := p_idx;
	v_idx integer;
begin
	for v_idx in select c.idx from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob and c.idx >= p_idx order by c.idx loop
		if not p_hole then
			return v_idx;
		end if;
		exit when v_idx > v_next;
		v_next := v_idx + 1;
	end loop;
	if p_hole then
		return v_next;
	end if;
	return null;
end $$;

-- Extended attributes ------------------------------------------------------------------------------------------------------

-- p_mode: 0 set, 1 must not be there, 2 must be there. p_open: the caller has the node open, so it need not have a name.
create function mediafs.set_xattr(p_drive integer, p_ino bigint, p_name bytea, p_value bytea, p_mode integer, p_open boolean, p_now bigint) returns void
language plpgsql as $$
declare
	v_there boolean;
begin
	update mediafs.nodes n set ctime_ns = p_now where n.drive_id = p_drive and n.ino = p_ino and (n.nlink > 0 or p_open);
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	v_there := exists (select from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino and x.name = p_name);
	if p_mode = 1 and v_there then
		raise exception 'exists' using errcode = 'MF409';
	elsif p_mode = 2 and not v_there then
		raise exception 'no such attribute' using errcode = 'MF061';
	elsif not v_there and 65536 < octet_length(p_name) + 1 + coalesce((select sum(octet_length(x.name) + 1) from mediafs.xattrs x
			where x.drive_id = p_drive and x.ino = p_ino), 0) then
		raise exception 'more names than listxattr(2) can return' using errcode = 'MF028'; -- XATTR_LIST_MAX of limits.h
	end if;
	insert into mediafs.xattrs as x (drive_id, ino, name, value) values (p_drive, p_ino, p_name, p_value)
		on conflict (drive_id, ino, name) do update set value = excluded.value;
end $$;

create function mediafs.remove_xattr(p_drive integer, p_ino bigint, p_name bytea, p_open boolean, p_now bigint) returns void
language plpgsql as $$
begin
	update mediafs.nodes n set ctime_ns = p_now where n.drive_id = p_drive and n.ino = p_ino and (n.nlink > 0 or p_open);
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = p_ino and x.name = p_name;
	if not found then
		raise exception 'no such attribute' using errcode = 'MF061';
	end if;
end $$;

-- Collection ---------------------------------------------------------------------------------------------------------------

-- Says that a mount is alive, and that it has these files open: one that was removed stays, whoever removed it.
create function mediafs.beat(p_drive integer, p_mount uuid, p_host text, p_open bigint[]) returns void
language plpgsql as $$
begin
	update mediafs.mounts m set seen_at = now() where m.drive_id = p_drive and m.mount_id = p_mount;
	if not found then
		insert into mediafs.mounts (drive_id, mount_id, host) values (p_drive, p_mount, p_host) on conflict do nothing;
	end if;
	update mediafs.removed r set mount_id = p_mount, removed_at = now()
		where r.drive_id = p_drive and r.ino <> 0 and r.ino = any (p_open);
	delete from mediafs.mounts m where m.drive_id = p_drive and m.seen_at < now() - interval '1 day';
end $$;

-- What was removed and may be collected by this mount if it has it not open, oldest first. What another mount removed stays while
-- that mount lives; while any lives, a node that this one removed stays for 20 seconds, so that whoever has it open can say so (beat).
create function mediafs.removable(p_drive integer, p_mount uuid, p_limit integer) returns setof mediafs.removed
language plpgsql stable as $$
declare
	v_alone boolean := not exists (select from mediafs.mounts m
		where m.drive_id = p_drive and m.mount_id <> p_mount and m.seen_at > now() - interval '60 s');
begin
	return query select r.* from mediafs.removed r where r.drive_id = p_drive
		and (v_alone
			or r.mount_id = p_mount and (r.ino = 0 or r.removed_at <= now() - interval '20 s')
			or not exists (select from mediafs.mounts m
				where m.drive_id = p_drive and m.mount_id = r.mount_id and m.seen_at > now() - interval '60 s'))
		order by r.removed_at limit p_limit;
end $$;

-- Takes away up to p_limit chunks of the removed blobs p_blobs, and what has no chunks left. Gives whether any are left.
create function mediafs.collect(p_drive integer, p_blobs bigint[], p_limit integer) returns boolean
language plpgsql as $$
declare
	v_row mediafs.removed;
	v_left integer := p_limit;
	v_n integer;
	v_bytes bigint;
begin
	for v_row in select r.* from mediafs.removed r where r.drive_id = p_drive and r.blob = any (p_blobs)
		order by r.blob for update skip locked loop
		if v_left <= 0 then
			return true;
		end if;
		with gone as (
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_row.blob and c.idx = any (array(
				select d.idx from mediafs.chunks d where d.drive_id = p_drive and d.blob = v_row.blob order by d.idx limit v_left))
			returning octet_length(c.data) as n)
		select count(*), coalesce(sum(n), 0) into v_n, v_bytes from gone;
		perform mediafs.charge(p_drive, -v_bytes, 0);
		if v_row.ino <> 0 then
			update mediafs.nodes n set allocated = n.allocated - v_bytes where n.drive_id = p_drive and n.ino = v_row.ino;
		end if;
		if v_n >= v_left then
			return true;
		end if;
		if v_row.ino <> 0 then
			delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = v_row.ino and n.nlink = 0;
			delete from mediafs.xattrs x where x.drive_id = p_drive and x.ino = v_row.ino;
			perform mediafs.charge(p_drive, 0, -1);
		end if;
		delete from mediafs.removed r where r.drive_id = p_drive and r.blob = v_row.blob;
		v_left := v_left - greatest(v_n, 1);
	end loop;
	return false;
end $$;
