-- Functions of the worker are its own to change.
grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Stores pieces of a blob, then the size and the times that go with them, in one transaction. The pieces come in the order of
-- p_idx. p_off is where in the chunk a piece begins; -1 where it is the whole chunk; -2 where it begins the chunk and reaches the
-- end of the file, if that is p_known bytes long. p_size is where the last piece ends: the file never gets shorter here.
-- p_mtime null leaves mtime as it is.
--
-- Whole chunks where there are none yet are stored beside others of the same file: the node is locked against those that cut it, replace its blob
-- or remove it, who take it for update, and not against others like this one, who wait for each other only to add up what they have stored.
create or replace function mediafs.put(p_drive integer, p_ino bigint, p_blob bigint, p_idx integer[], p_off integer[], p_data bytea[],
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
					mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime), described = false
				where n.drive_id = p_drive and n.ino = p_ino and n.blob = p_blob and n.allocated = 0 and n.size <= p_known
				returning n.*),
		c as (insert into mediafs.chunks (drive_id, blob, idx, data) select p_drive, p_blob, p_idx[1], p_data[1] from n),
		u as (update mediafs.usage u set bytes = u.bytes + n.allocated from n where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
		select * from n;
		if found then
			return;
		end if;
	end if;
	if v_n > 1 and -1 = all (p_off)
		and not exists (select from mediafs.chunks c where c.drive_id = p_drive and c.blob = p_blob and c.idx = any (p_idx)) then
		perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino and n.blob = p_blob for key share;
		if not found then
			raise exception 'the blob was replaced' using errcode = 'MF116';
		end if;
		return query with c as (
			insert into mediafs.chunks as c (drive_id, blob, idx, data)
				select p_drive, p_blob, d.idx, d.data from unnest(p_idx, p_data) d (idx, data)
				on conflict do nothing
				returning octet_length(c.data) as bytes),
		s as (select sum(c.bytes) as bytes, count(*) as n from c),
		u as (update mediafs.usage u set bytes = u.bytes + s.bytes from s
			where s.n = v_n and u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
		update mediafs.nodes n
			set size = greatest(n.size, p_size), allocated = n.allocated + s.bytes,
				mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime), described = false
			from s where s.n = v_n and n.drive_id = p_drive and n.ino = p_ino returning n.*;
		if not found then -- another mount has stored one of them meanwhile; the next try finds it
			raise exception 'a chunk was stored meanwhile' using errcode = 'serialization_failure';
		end if;
		return;
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
			mtime_ns = coalesce(p_mtime, n.mtime_ns), ctime_ns = greatest(n.ctime_ns, p_ctime), described = false
		from s where n.drive_id = p_drive and n.ino = p_ino returning n.*;
end $$;

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;
