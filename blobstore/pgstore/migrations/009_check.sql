-- What is cut from a file of more than 1 MiB is no longer in the usage from then on (set_attr), though its chunks are collected later. Collecting
-- them took it from the usage once more.
create or replace function mediafs.collect(p_drive integer, p_blobs bigint[], p_limit integer) returns boolean
language plpgsql as $$
declare
	v_row mediafs.removed;
	v_left integer := p_limit;
	v_n integer;
	v_bytes bigint;
begin
	for v_row in select r.* from mediafs.removed r where r.drive_id = p_drive and r.blob = any (p_blobs)
		order by r.blob for update loop
		if v_left <= 0 then
			return true;
		end if;
		with gone as (
			delete from mediafs.chunks c where c.drive_id = p_drive and c.blob = v_row.blob and c.idx = any (array(
				select d.idx from mediafs.chunks d where d.drive_id = p_drive and d.blob = v_row.blob order by d.idx limit v_left))
			returning octet_length(c.data) as n)
		select count(*), coalesce(sum(n), 0) into v_n, v_bytes from gone;
		if v_row.ino <> 0 then
			update mediafs.nodes n set allocated = n.allocated - v_bytes where n.drive_id = p_drive and n.ino = v_row.ino;
			perform mediafs.charge(p_drive, -v_bytes, 0);
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
