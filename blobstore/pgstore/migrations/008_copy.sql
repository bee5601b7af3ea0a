-- Copies inside the database, of any range of bytes.

-- The first bytes and, at p_at, the second; null is no bytes. Zeros are put between them only where something comes after.
create function mediafs.join_at(p_first bytea, p_at integer, p_second bytea) returns bytea
language sql immutable as $$
	select case when coalesce(p_second, '') = '' then coalesce(p_first, '')
		else coalesce(p_first, '') || mediafs.zeros(p_at - coalesce(octet_length(p_first), 0)) || p_second end
$$;

-- The bytes [p_off, p_off + p_n) of a blob, p_n at most the size of a chunk. It is shorter where nothing is stored any more: the
-- rest is zeros.
create function mediafs.slice(p_drive integer, p_blob bigint, p_off bigint, p_n integer, p_chunk integer) returns bytea
language plpgsql stable as $$
declare
	v_idx integer := (p_off / p_chunk)::integer;
	v_from integer := (p_off % p_chunk)::integer;
	v_first bytea;
	v_second bytea;
begin
	select substring(c.data from v_from + 1 for p_n) into v_first from mediafs.chunks c
		where c.drive_id = p_drive and c.blob = p_blob and c.idx = v_idx;
	if v_from + p_n > p_chunk then
		select substring(c.data for v_from + p_n - p_chunk) into v_second from mediafs.chunks c
			where c.drive_id = p_drive and c.blob = p_blob and c.idx = v_idx + 1;
	end if;
	return mediafs.join_at(v_first, p_chunk - v_from, v_second);
end $$;

-- Copies p_n bytes of p_from_blob from p_from on to the node p_ino from p_to on, which replace what is there, holes included. The
-- two ranges may be in one blob, but do not overlap.
create function mediafs.copy_range(p_drive integer, p_from_blob bigint, p_from bigint, p_n bigint, p_ino bigint, p_to bigint, p_now bigint,
	p_chunk integer)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_node mediafs.nodes;
	v_end bigint := p_to + p_n;
	v_first integer := ((p_to + p_chunk - 1) / p_chunk)::integer; -- the first chunk that is replaced whole
	v_last integer := (v_end / p_chunk)::integer;                  -- the first that is not
	v_shift bigint := p_from - p_to;
	v_skip integer := ((p_from - p_to) % p_chunk)::integer;       -- where in a chunk of the source one of the target begins
	v_idx integer;
	v_a bigint;
	v_b bigint;
	v_old bytea;
	v_new bytea;
	v_before bigint := 0;
	v_after bigint := 0;
	v_lost bigint;
	v_got bigint;
begin
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for update;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	end if;
	if v_skip < 0 then
		v_skip := v_skip + p_chunk;
	end if;

	-- The edges: chunks of which a part stays.
	foreach v_idx in array case when v_first > v_last then array[v_last] else array[v_first - 1, v_last] end loop
		v_a := greatest(p_to, v_idx::bigint * p_chunk);
		v_b := least(v_end, (v_idx + 1)::bigint * p_chunk);
		continue when v_a >= v_b;
		select c.data into v_old from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_node.blob and c.idx = v_idx;
		v_old := coalesce(v_old, '');
		v_new := mediafs.slice(p_drive, p_from_blob, v_a + v_shift, (v_b - v_a)::integer, p_chunk);
		v_a := v_a - v_idx::bigint * p_chunk;
		v_b := v_b - v_idx::bigint * p_chunk;
		v_new := mediafs.join_at(mediafs.join_at(substring(v_old for v_a::integer), v_a::integer, v_new),
			v_b::integer, substring(v_old from v_b::integer + 1));
		v_before := v_before + octet_length(v_old);
		v_after := v_after + octet_length(v_new);
		if v_new = '' then
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_node.blob and c.idx = v_idx;
		else
			insert into mediafs.chunks as c (drive_id, blob, idx, data) values (p_drive, v_node.blob, v_idx, v_new)
				on conflict (drive_id, blob, idx) do update set data = excluded.data;
		end if;
	end loop;

	-- All between them.
	if v_first < v_last then
		with gone as (
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_node.blob and c.idx >= v_first and c.idx < v_last
			returning octet_length(c.data) as n)
		select coalesce(sum(n), 0) into v_lost from gone;
		v_idx := ((v_first::bigint * p_chunk + v_shift) / p_chunk)::integer; -- the chunk of the source that v_first begins in
		if v_skip = 0 then
			with got as (
				insert into mediafs.chunks (drive_id, blob, idx, data)
					select p_drive, v_node.blob, c.idx - v_idx + v_first, c.data from mediafs.chunks c
					where c.drive_id = p_drive and c.blob = p_from_blob and c.idx >= v_idx and c.idx < v_idx + (v_last - v_first)
				returning octet_length(data) as n)
			select coalesce(sum(n), 0) into v_got from got;
		else
			with got as (
				insert into mediafs.chunks (drive_id, blob, idx, data)
					select p_drive, v_node.blob, i - v_idx + v_first, joined.data
					from (select c.idx as i, substring(c.data from v_skip + 1) as data from mediafs.chunks c
						where c.drive_id = p_drive and c.blob = p_from_blob and c.idx >= v_idx and c.idx < v_idx + (v_last - v_first)) one
					full join (select c.idx - 1 as i, substring(c.data for v_skip) as data from mediafs.chunks c
						where c.drive_id = p_drive and c.blob = p_from_blob and c.idx > v_idx and c.idx <= v_idx + (v_last - v_first)) two using (i),
					lateral (select mediafs.join_at(one.data, p_chunk - v_skip, two.data) as data offset 0) joined
					where joined.data <> ''
				returning octet_length(data) as n)
			select coalesce(sum(n), 0) into v_got from got;
		end if;
		v_before := v_before + v_lost;
		v_after := v_after + v_got;
	end if;

	perform mediafs.charge(p_drive, v_after - v_before, 0);
	return query update mediafs.nodes n
		set size = greatest(n.size, v_end), allocated = n.allocated + v_after - v_before, mtime_ns = p_now, ctime_ns = p_now
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

drop function mediafs.copy_chunks(integer, bigint, integer, integer, bigint, integer, bigint, bigint);
