-- What a mount could not store it keeps on its own disk and stores later (spool.go). The folder there is named by the drive's uuid,
-- which stays what it is when the database moves to another address, and which no other drive of any store has.

alter table mediafs.drives add column uuid uuid unique not null default gen_random_uuid(); -- read by mounts like the rest, and updated by nobody

-- Is put for what was kept on disk. It refuses (MF116) what may be older than what is there: the file has no name any more, its
-- content was replaced, or it was written after p_ctime, when the bytes were kept. A change of its name or mode alone does not count:
-- then mtime is still one that the mount knew, p_stored_mtime in the database or p_mtime in memory.
create function mediafs.put_kept(p_drive integer, p_ino bigint, p_blob bigint, p_idx integer[], p_off integer[], p_data bytea[],
	p_size bigint, p_known bigint, p_mtime bigint, p_ctime bigint, p_stored_mtime bigint)
returns setof mediafs.nodes
language plpgsql as $$
begin
	perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino and n.blob = p_blob and n.nlink > 0
		and (n.ctime_ns <= p_ctime or n.mtime_ns = p_stored_mtime or n.mtime_ns = p_mtime) for update;
	if not found then
		raise exception 'the file was changed meanwhile' using errcode = 'MF116';
	end if;
	return query select * from mediafs.put(p_drive, p_ino, p_blob, p_idx, p_off, p_data, p_size, p_known, p_mtime, p_ctime);
end $$;
