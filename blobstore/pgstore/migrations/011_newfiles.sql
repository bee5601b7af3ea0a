-- Makes a file together with its first pieces, in one transaction: it is what put gives after make. The name was taken at p_made: the folder's times are that,
-- unless they were set since, in which case its ctime is later. p_idx, p_off, p_data and p_size are as put has
-- them. Done twice it makes one file: the second time it is put.
create function mediafs.make_put(p_drive integer, p_parent bigint, p_name bytea, p_made bigint, p_ino bigint, p_mode integer, p_uid bigint, p_gid bigint,
	p_atime bigint, p_mtime bigint, p_ctime bigint, p_idx integer[], p_off integer[], p_data bytea[], p_size bigint)
returns setof mediafs.nodes
language plpgsql as $$
declare
	v_mode integer;
	v_ino bigint;
begin
	update mediafs.nodes n set mtime_ns = case when n.ctime_ns <= p_made then p_made else n.mtime_ns end, ctime_ns = greatest(n.ctime_ns, p_made)
		where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 returning n.mode into v_mode;
	if not found then
		raise exception 'no such folder' using errcode = 'MF404';
	elsif v_mode & 61440 <> 16384 then
		raise exception 'not a folder' using errcode = 'MF020';
	end if;
	insert into mediafs.entries (drive_id, parent, name, position, ino) values (p_drive, p_parent, p_name, p_ino, p_ino) on conflict do nothing;
	if found then
		insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			values (p_drive, p_ino, p_ino, p_mode, 1, p_uid, p_gid, p_atime, p_mtime, p_ctime);
		perform mediafs.charge(p_drive, 0, 1);
	else
		select e.ino into v_ino from mediafs.entries e where e.drive_id = p_drive and e.parent = p_parent and e.name = p_name;
		if v_ino is distinct from p_ino then
			raise exception 'exists' using errcode = 'MF409';
		end if;
	end if;
	return query select * from mediafs.put(p_drive, p_ino, p_ino, p_idx, p_off, p_data, p_size, 0, p_mtime, p_ctime);
end $$;
