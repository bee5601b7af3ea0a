-- The folders in a folder are listed without a mount.

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- What one drive has at a path, whose names are apart, and the folders in it by name, after p_after. The first row says what is there: its kind (S_IFMT), without
-- a name. There is none if nothing is.
create function mediafs.drive_folders(p_drive integer, p_folder bytea[], p_after bytea, p_limit integer)
returns table (o_kind integer, o_name bytea, o_mtime bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_part bytea;
	v_folder bigint := 1;
	v_mode integer;
begin
	p_drive := mediafs.admit_reader(p_drive);
	select n.mode into v_mode from mediafs.nodes n where n.drive_id = p_drive and n.ino = v_folder;
	foreach v_part in array p_folder loop
		if v_mode & 61440 <> 16384 then -- S_IFDIR
			return;
		end if;
		select e.ino, n.mode into v_folder, v_mode from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
			where e.drive_id = p_drive and e.parent = v_folder and e.name = v_part;
		if not found then
			return;
		end if;
	end loop;
	o_kind := v_mode & 61440;
	return next;
	return query select 16384, e.name, n.mtime_ns
		from (select n.ino, n.mtime_ns from mediafs.nodes n where n.drive_id = p_drive and n.parent = v_folder and n.parent <> 0 and n.ino <> 1 offset 0) n
			cross join lateral (select e.name from mediafs.entries e where e.drive_id = p_drive and e.ino = n.ino offset 0) e
		where e.name > p_after order by e.name limit p_limit;
end $$;
revoke all on function mediafs.drive_folders(integer, bytea[], bytea, integer) from public;
grant execute on function mediafs.drive_folders(integer, bytea[], bytea, integer) to mediafs;

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;

-- A page of the folders in a folder, of all drives that a token may list: see blobstore.Assets.FindFolders. It begins after the name p_after_name in the drive
-- p_after_drive.
create function mediafs.find_folders(p_token text, p_names text[], p_folder bytea[], p_after_drive text, p_after_name bytea, p_limit integer)
returns table (o_drive text, o_name bytea, o_mtime bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive record;
	v_row record;
	v_left integer := p_limit;
	v_there boolean := p_after_drive <> '' or p_folder = '{}';
	v_other boolean := false;
begin
	perform set_config('mediafs.token', p_token, true);
	for v_drive in select d.* from mediafs.listable_drives(p_token, p_names, p_after_drive) d loop
		perform set_config('mediafs.drive', v_drive.o_drive::text, true);
		for v_row in select f.* from mediafs.drive_folders(v_drive.o_drive, p_folder,
				case when v_drive.o_name = p_after_drive then p_after_name else '' end, v_left) f loop
			if v_row.o_name is null then
				v_there := v_there or v_row.o_kind = 16384;
				v_other := v_other or v_row.o_kind <> 16384;
				continue;
			end if;
			o_drive := v_drive.o_name;
			o_name := v_row.o_name;
			o_mtime := v_row.o_mtime;
			v_left := v_left - 1;
			return next;
		end loop;
		exit when v_left = 0;
	end loop;
	if not v_there and v_other then
		raise exception 'mediafs: it is no folder' using errcode = 'MF020';
	elsif not v_there then
		raise exception 'mediafs: no such folder' using errcode = 'MF404';
	end if;
end $$;
revoke all on function mediafs.find_folders(text, text[], bytea[], text, bytea, integer) from public;
grant execute on function mediafs.find_folders(text, text[], bytea[], text, bytea, integer) to mediafs;
