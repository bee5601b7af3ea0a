-- Pieces that are parts of their chunks, all in one statement.
--
-- put as in 002_operations.sql, but the loop is left with what it takes a loop for: chunks that are not there yet, are too short for
-- where the piece begins, or have several pieces. For the rest one UPDATE takes half the server's time.
create or replace function mediafs.put(p_drive integer, p_ino bigint, p_blob bigint, p_idx integer[], p_off integer[], p_data bytea[],
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
	v_done integer[] := '{}'; -- chunks that are stored before the loop
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
		if v_before > 0 and 0 <= any (p_off) then
			with stored as (
				update mediafs.chunks c set data = overlay(c.data placing u.data from u.off + 1)
					from (select p.idx, p.off, p.data, count(*) over (partition by p.idx) as pieces
						from unnest(p_idx, p_off, p_data) p (idx, off, data)) u
					where c.drive_id = p_drive and c.blob = p_blob and c.idx = u.idx
						and u.pieces = 1 and u.off >= 0 and u.off <= octet_length(c.data)
					returning c.idx, octet_length(c.data) as length)
			select coalesce(array_agg(s.idx), '{}'), coalesce(sum(s.length), 0) into v_done, v_after from stored s;
		end if;
	end if;
	while v_i <= v_n loop
		if p_off[v_i] < 0 then
			v_after := v_after + octet_length(p_data[v_i]);
			v_i := v_i + 1;
			continue;
		end if;
		if p_idx[v_i] = any (v_done) then
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
