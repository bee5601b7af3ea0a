-- Files are assets: each has an id, a job, and facts that its content says.

-- Ids -----------------------------------------------------------------------------------------------------------------------
--
-- An asset's id is a UUID of version 8 (RFC 9562): 48 bits that are the drive's own, the number of the drive (20 bits) and of the node
-- (54). So it costs a node nothing, stays as long as the node does, is nobody else's, and leads back to its node by the primary key. Who
-- knows one id of a drive can tell others of it, but only the drive's own sessions can use one.

alter table mediafs.drives add column asset_key bigint not null check (asset_key between 0 and 281474976710655)
	default ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint;

create function mediafs.asset_id(p_key bigint, p_drive integer, p_ino bigint) returns uuid
language sql immutable parallel safe
return (lpad(to_hex(p_key), 12, '0') || '8' || lpad(to_hex(p_drive >> 8), 3, '0')
	|| to_hex((-9223372036854775807 - 1) | ((p_drive & 255)::bigint << 54) | p_ino))::uuid;

-- Nodes ---------------------------------------------------------------------------------------------------------------------
--
-- described: facts has what the content says as it is now. Whatever changes content sets it back.

-- Making an index counts the table. To the planner one that had a single row then, as in a new store, has few for ever, until it is analyzed, and plans
-- that read all of a drive look good. So the only row of a new store comes back when the indexes are made.
alter table mediafs.nodes no force row level security;
delete from mediafs.nodes where drive_id = 1048575 and not exists (select from mediafs.nodes where (drive_id, ino) <> (1048575, 1));

alter table mediafs.nodes add column job text check (octet_length(job) between 1 and 255),
	add column created_ns bigint not null default (extract(epoch from clock_timestamp()) * 1000000000)::bigint,
	add column described boolean not null default false;
update mediafs.nodes set created_ns = least(mtime_ns, ctime_ns), described = mode & 61440 <> 32768;
grant update (job, described) on mediafs.nodes to mediafs_worker;
grant update (described) on mediafs.nodes to mediafs;

-- What is to be described, the newest last; the assets of a job; the folders of a folder; the names of a node.
create index nodes_undescribed on mediafs.nodes (drive_id, created_ns, ino) where not described;
create index nodes_job on mediafs.nodes (drive_id, job, created_ns, ino) where job is not null;
create index nodes_folders on mediafs.nodes (drive_id, parent) where parent <> 0;
create index entries_node on mediafs.entries (drive_id, ino);

insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns, created_ns, described)
	select 1048575, 1, 1, 16384 + 493, 2, 0, 0, t, t, t, t, true from (select (extract(epoch from now()) * 1000000000)::bigint as t) n -- S_IFDIR, 0755
	on conflict do nothing;
alter table mediafs.nodes force row level security;

-- What the content of a file says. Not columns of nodes: those rows are wide enough, and are read and written by everything. created_ns is
-- the node's, and never changes.
create table mediafs.facts (
	ino        bigint not null,
	created_ns bigint not null,
	taken_ns   bigint,           -- when the picture was taken
	drive_id   integer not null,
	width      integer,          -- pixels
	height     integer,
	mime_type  text collate "C" not null, -- '' if nobody can say
	sha256     bytea not null check (octet_length(sha256) = 32),
	primary key (drive_id, ino)
);
create index facts_type on mediafs.facts (drive_id, mime_type, created_ns, ino);
create index facts_creation on mediafs.facts (drive_id, created_ns, ino);

do $$
declare
	c_own constant text := '(drive_id = current_setting(''mediafs.checked'')::integer)';
begin
	alter table mediafs.facts enable row level security;
	alter table mediafs.facts force row level security;
	create policy own_select on mediafs.facts for select to mediafs using (drive_id = mediafs.session_drive());
	create policy own_delete on mediafs.facts for delete to mediafs
		using (drive_id = mediafs.session_drive() and (drive_id <> 1048575 or drive_id = mediafs.session_writable_drive()));
	grant select, delete on mediafs.facts to mediafs;
	execute 'create policy worker_select on mediafs.facts for select to mediafs_worker using ' || c_own;
	execute 'create policy worker_insert on mediafs.facts for insert to mediafs_worker with check ' || c_own;
	execute 'create policy worker_update on mediafs.facts for update to mediafs_worker using ' || c_own || ' with check (true)';
	execute 'create policy worker_delete on mediafs.facts for delete to mediafs_worker using ' || c_own;
	grant select, insert, delete, update (taken_ns, width, height, mime_type, sha256) on mediafs.facts to mediafs_worker;
	execute 'create policy worker_select on mediafs.accesses for select to mediafs_worker using ' || c_own;
	grant select on mediafs.accesses to mediafs_worker;
end $$;

-- Facts go with their node, as extended attributes do.
create or replace function mediafs.drop_name(p_drive integer, p_node mediafs.nodes, p_now bigint, p_mount uuid, p_open bigint[]) returns mediafs.nodes
language plpgsql as $$
begin
	if p_node.nlink = 1 and (p_node.blob = 0 or p_node.allocated <= 1048576 and p_node.ino <> all (p_open)) then
		with n as (
			delete from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_node.ino
				and (p_node.blob = 0 or not exists (select from mediafs.mounts m
					where m.drive_id = p_drive and m.mount_id <> p_mount and m.seen_at > now() - interval '60 s'))
			returning n.ino),
		x as (delete from mediafs.xattrs x using n where x.drive_id = p_drive and x.ino = n.ino),
		f as (delete from mediafs.facts f using n where f.drive_id = p_drive and f.ino = n.ino),
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
			delete from mediafs.facts f where f.drive_id = p_drive and f.ino = v_row.ino;
			perform mediafs.charge(p_drive, 0, -1);
		end if;
		delete from mediafs.removed r where r.drive_id = p_drive and r.blob = v_row.blob;
		v_left := v_left - greatest(v_n, 1);
	end loop;
	return false;
end $$;

-- What was copied into is to be described anew.
create or replace function mediafs.copy_range(p_drive integer, p_from_blob bigint, p_from bigint, p_n bigint, p_ino bigint, p_to bigint, p_now bigint,
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
		set size = greatest(n.size, v_end), allocated = n.allocated + v_after - v_before, mtime_ns = p_now, ctime_ns = p_now, described = false
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- Whoever reads p_drive with the worker's rights is let in here, or told why not: admit for who changes nothing. Gives p_drive. Functions that begin with
-- it are stable, so that the database refuses changes in them, and have a search_path of their own, because programs call them with theirs.
create function mediafs.admit_reader(p_drive integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if mediafs.session_drive() <> p_drive then
		-- Not MF404: see permitted_drive.
		raise exception 'mediafs: the session may not use this drive' using errcode = 'MF004';
	end if;
	return set_config('mediafs.checked', p_drive::text, true)::integer;
end $$;
revoke all on function mediafs.admit_reader(integer) from public;
grant execute on function mediafs.admit_reader(integer) to mediafs_worker;

-- The path of a folder from the root of the drive, without slashes around it; null in a ring of folders. For the worker alone.
create function mediafs.folder_of(p_drive integer, p_ino bigint) returns bytea
language plpgsql stable as $$
declare
	v_path bytea;
	v_left integer := 4096;
	v_name bytea;
begin
	while p_ino <> 1 loop
		select e.name, e.parent into v_name, p_ino from mediafs.entries e where e.drive_id = p_drive and e.ino = p_ino;
		v_left := v_left - 1;
		if not found or v_left = 0 then
			return null;
		end if;
		v_path := v_name || coalesce('\x2f'::bytea || v_path, '');
	end loop;
	return coalesce(v_path, '');
end $$;
revoke all on function mediafs.folder_of(integer, bigint) from public;
grant execute on function mediafs.folder_of(integer, bigint) to mediafs_worker;

-- Names are bytes. What is not UTF-8 shows with its odd bytes as \ooo.
create function mediafs.text_of(p_name bytea) returns text
language plpgsql immutable as $$
begin
	return pg_catalog.convert_from(p_name, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
	return pg_catalog.encode(p_name, 'escape');
end $$;

-- Whether a name matches a regular expression; what is not UTF-8 may.
create function mediafs.may_match(p_name bytea, p_regex text) returns boolean
language plpgsql immutable as $$
begin
	return pg_catalog.convert_from(p_name, 'UTF8') operator(pg_catalog.~) p_regex;
exception when character_not_in_repertoire or untranslatable_character then
	return true;
end $$;

create function mediafs.at_ns(p_ns bigint) returns timestamptz
language sql immutable parallel safe
return timestamptz '1970-01-01 00:00:00+00' + (p_ns / 1000) * interval '1 microsecond';

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Makes a node and its first name. A node's first name has the node's own number as its position. The node is of its folder's job.
create or replace function mediafs.make(p_drive integer, p_parent bigint, p_name bytea, p_ino bigint, p_mode integer, p_uid bigint,
	p_gid bigint, p_rdev bigint, p_target bytea, p_now bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return query with p as (
		update mediafs.nodes n set mtime_ns = p_now, ctime_ns = p_now, nlink = n.nlink + (p_mode & 61440 = 16384)::integer
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384
			returning n.mode & 1024 as sgid, n.gid, n.job), -- S_ISGID: the group is inherited (inode_init_owner)
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino) select p_drive, p_parent, p_name, p_ino, p_ino from p),
	u as (update mediafs.usage u set nodes = u.nodes + 1 from p where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, parent, blob, mode, nlink, uid, gid, rdev, target, size, atime_ns, mtime_ns, ctime_ns, created_ns, job, described)
		select p_drive, p_ino, case when p_mode & 61440 = 16384 then p_parent else 0 end, case when p_mode & 61440 = 32768 then p_ino else 0 end,
			case when p_mode & 61440 = 16384 then p_mode | p.sgid else p_mode end, 1 + (p_mode & 61440 = 16384)::integer, p_uid,
			case when p.sgid <> 0 then p.gid else p_gid end, p_rdev, p_target, coalesce(octet_length(p_target), 0), p_now, p_now, p_now,
			p_now, p.job, p_mode & 61440 <> 32768 from p
		returning *;
	if not found then
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_now); -- says why not
	end if;
end $$;

-- Makes a new file with its content: what make and put come to, but that the group is given. p_data are its chunks, each from its first byte on, p_idx
-- their numbers, each once; p_size is the size of the file. Its name was taken at p_made: the folder's times are that, unless they were set since: then
-- its ctime is later.
create or replace function mediafs.make_file(p_drive integer, p_parent bigint, p_name bytea, p_ino bigint, p_mode integer, p_uid bigint, p_gid bigint,
	p_idx integer[], p_data bytea[], p_size bigint, p_made bigint, p_atime bigint, p_mtime bigint, p_ctime bigint)
returns setof mediafs.nodes
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return query with p as (
		update mediafs.nodes n set mtime_ns = case when n.ctime_ns <= p_made then p_made else n.mtime_ns end, ctime_ns = greatest(n.ctime_ns, p_made)
			where n.drive_id = p_drive and n.ino = p_parent and n.nlink > 0 and n.mode & 61440 = 16384
			returning n.job, (select coalesce(sum(octet_length(d)), 0) from unnest(p_data) d) as bytes),
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino) select p_drive, p_parent, p_name, p_ino, p_ino from p),
	c as (insert into mediafs.chunks (drive_id, blob, idx, data)
		select p_drive, p_ino, d.idx, d.data from p, unnest(p_idx, p_data) d (idx, data)),
	u as (update mediafs.usage u set bytes = u.bytes + p.bytes, nodes = u.nodes + 1 from p
		where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, size, allocated, atime_ns, mtime_ns, ctime_ns, created_ns, job)
		select p_drive, p_ino, p_ino, p_mode, 1, p_uid, p_gid, p_size, p.bytes, p_atime, p_mtime, p_ctime, p_made, p.job from p
		returning *;
	if not found then
		perform mediafs.touch_folder(p_drive, p_parent, 0, p_made); -- says why not
	end if;
end $$;

-- Does make_file for several files, also of several folders, or for none if one of them can't be made. p_blob are the numbers of the files that the
-- chunks p_idx and p_data are of.
create or replace function mediafs.make_files(p_drive integer, p_parent bigint[], p_name bytea[], p_ino bigint[], p_mode integer[], p_uid bigint[], p_gid bigint[],
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
			returning n.ino, n.job),
	e as (insert into mediafs.entries (drive_id, parent, name, position, ino)
		select p_drive, f.parent, f.name, f.ino, f.ino from unnest(p_parent, p_name, p_ino) f (parent, name, ino)),
	c as (insert into mediafs.chunks (drive_id, blob, idx, data)
		select p_drive, d.blob, d.idx, d.data from unnest(p_blob, p_idx, p_data) d (blob, idx, data)),
	u as (update mediafs.usage u set nodes = u.nodes + cardinality(p_ino),
			bytes = u.bytes + (select coalesce(sum(octet_length(d)), 0) from unnest(p_data) d)
		where u.drive_id = p_drive and u.slot = pg_backend_pid() % 8)
	insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, size, allocated, atime_ns, mtime_ns, ctime_ns, created_ns, job)
		select p_drive, f.ino, f.ino, f.mode, 1, f.uid, f.gid, f.size, coalesce(d.bytes, 0), f.atime, f.mtime, f.ctime, f.made, p.job
		from unnest(p_parent, p_ino, p_mode, p_uid, p_gid, p_size, p_atime, p_mtime, p_ctime, p_made) f (parent, ino, mode, uid, gid, size, atime, mtime, ctime, made)
		join p on p.ino = f.parent
		left join (select d.blob, sum(octet_length(d.data)) as bytes from unnest(p_blob, p_data) d (blob, data) group by d.blob) d on d.blob = f.ino
		returning *;
	get diagnostics v_n = row_count;
	if v_n < cardinality(p_ino) then
		perform mediafs.touch_folder(p_drive, f, 0, 0) from unnest(p_parent) f; -- says why not
	end if;
end $$;

-- Stores pieces of a blob, then the size and the times that go with them, in one transaction. The pieces come in the order of
-- p_idx. p_off is where in the chunk a piece begins; -1 where it is the whole chunk; -2 where it begins the chunk and reaches the
-- end of the file, if that is p_known bytes long. p_size is where the last piece ends: the file never gets shorter here.
-- p_mtime null leaves mtime as it is.
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

-- Changes attributes. p_set: the bits of blobstore.AttrSet. p_blob: a fresh number for the content if it is cut to nothing.
create or replace function mediafs.set_attr(p_drive integer, p_ino bigint, p_set integer, p_mode integer, p_uid bigint, p_gid bigint,
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
			blob = v_node.blob, atime_ns = v_node.atime_ns, mtime_ns = v_node.mtime_ns, ctime_ns = p_now, described = n.described and p_set & 8 = 0
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- Empties a range and sets the size that goes with it.
create or replace function mediafs.zero_range(p_drive integer, p_ino bigint, p_from bigint, p_to bigint, p_size bigint, p_now bigint, p_chunk integer)
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
		set size = greatest(n.size, p_size), allocated = n.allocated - v_lost, mtime_ns = p_now, ctime_ns = p_now, described = false
		where n.drive_id = p_drive and n.ino = p_ino returning *;
end $$;

-- p_mode: 0 set, 1 must not be there, 2 must be there. p_open: the caller has the node open, so it need not have a name. What is known of an asset is listed with
-- its attributes, so their names leave 512 bytes of what listxattr(2) can return.
create or replace function mediafs.set_xattr(p_drive integer, p_ino bigint, p_name bytea, p_value bytea, p_mode integer, p_open boolean, p_now bigint) returns void
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
	elsif not v_there and v_names + octet_length(p_name) + 1 > 65536 - 512 then
		raise exception 'more names than listxattr(2) can return' using errcode = 'MF028'; -- XATTR_LIST_MAX of limits.h
	end if;
	insert into mediafs.xattrs as x (drive_id, ino, name, value) values (p_drive, p_ino, p_name, p_value)
		on conflict (drive_id, ino, name) do update set value = excluded.value;
end $$;

-- Gives a file or folder a job, or with null none. p_mode and p_open are as those of set_xattr.
create function mediafs.set_job(p_drive integer, p_ino bigint, p_job text, p_mode integer, p_open boolean, p_now bigint) returns void
language plpgsql security definer as $$
declare
	v_node mediafs.nodes;
begin
	p_drive := mediafs.admit(p_drive);
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino and (n.nlink > 0 or p_open) for update;
	if not found then
		raise exception 'no such node' using errcode = 'MF404';
	elsif v_node.mode & 61440 not in (16384, 32768) then
		raise exception 'neither a file nor a folder' using errcode = 'MF013';
	elsif p_mode = 1 and v_node.job is not null then
		raise exception 'exists' using errcode = 'MF409';
	elsif p_mode = 2 and v_node.job is null then
		raise exception 'no such attribute' using errcode = 'MF061';
	end if;
	update mediafs.nodes n set job = p_job, ctime_ns = p_now where n.drive_id = p_drive and n.ino = p_ino;
end $$;

-- Stores what the content of files says, of those whose content and ctime are what they were when it was read; the others have to be
-- described again.
create function mediafs.describe(p_drive integer, p_ino bigint[], p_blob bigint[], p_ctime bigint[], p_type text[], p_sha256 bytea[],
	p_width integer[], p_height integer[], p_taken bigint[]) returns void
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	with d as (
		select n.created_ns, t.* from unnest(p_ino, p_blob, p_ctime, p_type, p_sha256, p_width, p_height, p_taken) t (ino, blob, ctime, type, sha256, width, height, taken)
			join mediafs.nodes n on n.drive_id = p_drive and n.ino = t.ino
			where n.blob = t.blob and n.ctime_ns = t.ctime and n.nlink > 0 and n.mode & 61440 = 32768
			order by n.ino for update of n),
	f as (insert into mediafs.facts as f (drive_id, ino, created_ns, mime_type, sha256, width, height, taken_ns)
		select p_drive, d.ino, d.created_ns, d.type, d.sha256, d.width, d.height, d.taken from d
		on conflict (drive_id, ino) do update set mime_type = excluded.mime_type, sha256 = excluded.sha256, width = excluded.width,
			height = excluded.height, taken_ns = excluded.taken_ns)
	update mediafs.nodes n set described = true from d where n.drive_id = p_drive and n.ino = d.ino;
end $$;

-- What the views show for a path.
create function mediafs.asset_path(p_drive integer, p_parent bigint, p_name bytea) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
	p_drive := mediafs.admit_reader(p_drive);
	return ltrim(mediafs.text_of(mediafs.folder_of(p_drive, p_parent) || '\x2f'::bytea || p_name), '/');
end $$;

-- Asks for a page of the assets of one drive: see blobstore.AssetQuery. p_folder is a path, its names apart; all names that are wanted match
-- p_regex, if they are UTF-8. p_types are types, or what types begin with and an asterisk. A page by creation begins after (p_after_ns, p_after_ino),
-- one by path after the name p_after_name in the folder p_after_folder. What there are many of is never read as a whole:
--
--   by creation  the index of the job, of each type, or of creation gives the newest first, and reading ends when the page is full;
--   by path      if few are of the job, types and time, they are all looked up and sorted; if not, the folders are gone through in order.
--
-- What is executed has all the same parameters. Rows are looked up in LATERAL subqueries with OFFSET 0, so that whatever the planner
-- knows of the tables, no table is read as a whole for a page.
create function mediafs.drive_assets(p_drive integer, p_folder bytea[], p_shallow boolean, p_regex text, p_types text[], p_job text,
	p_since bigint, p_until bigint, p_min bigint, p_max bigint, p_by_path boolean,
	p_after_ns bigint, p_after_ino bigint, p_after_folder bytea, p_after_name bytea, p_limit integer)
returns table (o_ino bigint, o_folder bytea, o_name bytea, o_size bigint, o_job text, o_created bigint, o_mtime bigint, o_described boolean,
	o_type text, o_sha256 bytea, o_width integer, o_height integer, o_taken bigint, o_count bigint, o_at bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
	c_few constant integer := 5000;
	c_facts constant text := 'left join lateral (select f.* from mediafs.facts f where f.drive_id = $1 and f.ino = n.ino offset 0) f on true '
		'left join lateral (select a.count, a.at_ns from mediafs.accesses a where a.drive_id = $1 and a.ino = n.ino offset 0) a on true ';
	c_columns constant text := 'n.nlink, n.size, n.job, n.created_ns, n.mtime_ns, n.described, f.mime_type, f.sha256, f.width, f.height, f.taken_ns, a.count, a.at_ns';
	c_named constant text := 'mediafs.may_match(%s.name, $8)';
	-- Of the names of a file that are wanted, the first stands for it.
	c_first constant text := '(h.nlink = 1 or not exists (select from mediafs.entries o, lateral (select mediafs.folder_of($1, o.parent) as path) p '
		'where o.drive_id = $1 and o.ino = h.ino and (p.path, o.name) < (%s, h.name) and %s and %s))';
	v_fits text := 'n.mode & 61440 = 32768 and n.nlink > 0 and n.created_ns >= $4 and n.created_ns < $5 and n.size >= $6 and n.size <= $7';
	v_inside text; -- that p.path is of a folder that is wanted
	v_first_name text; -- that o.name is wanted
	v_shown text;
	v_types text[];
	v_kind text;
	v_sources text[]; -- queries of numbers and times of creation
	v_source text;    -- one of all of them, the newest first
	v_lookup text;    -- one of the rows for numbers
	v_part bytea;
	v_folder bigint := 1;
	v_path bytea := '';
	v_mode integer;
	v_inos bigint[];
	v_paths bytea[];
	v_last bigint;
	v_left integer := p_limit;
	v_first integer;
	v_batch integer;
	v_n integer;
begin
	p_drive := mediafs.admit_reader(p_drive);
	foreach v_part in array p_folder loop
		select e.ino, n.mode into v_folder, v_mode from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
			where e.drive_id = p_drive and e.parent = v_folder and e.name = v_part;
		if not found or v_mode & 61440 <> 16384 then
			return;
		end if;
		v_path := case when v_path = '' then v_part else v_path || '\x2f'::bytea || v_part end;
	end loop;
	if p_regex is not null then
		v_fits := v_fits || ' and ' || format(c_named, 'e');
	end if;
	if p_job is not null then
		v_fits := v_fits || ' and n.job = $3';
		v_sources := array['select n.ino, n.created_ns from mediafs.nodes n where n.drive_id = $1 and n.job = $3'];
	end if;
	if p_types is not null then -- of a kind, those that there are: one look into the index for each
		v_types := '{}';
		foreach v_kind in array p_types loop
			if v_kind not like '%*' then
				v_types := v_types || v_kind;
				continue;
			end if;
			v_kind := left(v_kind, -1);
			v_types := v_types || coalesce((with recursive t (type) as (
				(select f.mime_type from mediafs.facts f where f.drive_id = p_drive and f.mime_type >= v_kind collate "C" order by f.mime_type limit 1)
				union all
				select (select f.mime_type from mediafs.facts f where f.drive_id = p_drive and f.mime_type > t.type order by f.mime_type limit 1)
					from t where starts_with(t.type, v_kind))
				select array_agg(t.type::text) from t where starts_with(t.type, v_kind)), '{}');
		end loop;
		if cardinality(v_types) = 0 then
			return;
		end if;
		v_fits := v_fits || ' and f.mime_type = any ($2)';
		v_sources := coalesce(v_sources, array(
			select format('select n.ino, n.created_ns from mediafs.facts n where n.drive_id = $1 and n.mime_type = %L', t) from (select distinct unnest(v_types)) d (t)));
	end if;
	if v_sources is null and (not p_by_path or p_since > -9223372036854775808 or p_until < 9223372036854775807) then
		v_sources := array['select n.ino, n.created_ns from mediafs.facts n where n.drive_id = $1',
			'select n.ino, n.created_ns from mediafs.nodes n where n.drive_id = $1 and not n.described '
			'and (select f.ino from mediafs.facts f where f.drive_id = $1 and f.ino = n.ino) is null'];
	end if;

	v_shown := replace(regexp_replace(c_columns, '\m[nfa]\.', 'h.', 'g'), 'h.nlink, ', '');
	v_first_name := case when p_regex is null then 'true' else format(c_named, 'o') end;
	v_inside := case when p_shallow then 'p.path = $16'
		when v_folder = 1 then 'true'
		else '(p.path = $16 or substring(p.path for octet_length($16) + 1) = $16 || ''\x2f''::bytea)' end;
	v_source := 'select array_agg(s.ino order by s.created_ns desc, s.ino desc), min(s.created_ns) from (select * from ('
		|| (select string_agg('(' || s || ' and n.created_ns >= $4 and n.created_ns < $5 and (n.created_ns, n.ino) < ($9, $10)'
			' order by n.created_ns desc, n.ino desc limit $15)', ' union all ') from unnest(v_sources) s)
		|| ') s order by s.created_ns desc, s.ino desc limit $15) s';
	v_lookup := 'with recursive h as materialized (
			select u.nth, e.parent, n.ino, e.name, ' || c_columns || ' from unnest($11) with ordinality u (ino, nth)
			cross join lateral (select n.* from mediafs.nodes n where n.drive_id = $1 and n.ino = u.ino offset 0) n
			cross join lateral (select e.* from mediafs.entries e where e.drive_id = $1 and e.ino = n.ino offset 0) e ' || c_facts || '
			where ' || v_fits || '),
		up (ino, parent, name) as (
			select e.* from (select distinct h.parent as ino from h where h.parent <> 1) p
				cross join lateral (select e.ino, e.parent, e.name from mediafs.entries e where e.drive_id = $1 and e.ino = p.ino offset 0) e
			union
			select e.* from up cross join lateral (select e.ino, e.parent, e.name from mediafs.entries e where e.drive_id = $1 and e.ino = up.parent offset 0) e
				where up.parent <> 1),
		paths (ino, path) as (
			select 1::bigint, ''''::bytea
			union all
			select up.ino, case when p.ino = 1 then up.name else p.path || ''\x2f''::bytea || up.name end from paths p join up on up.parent = p.ino)
		select h.ino, p.path, h.name, ' || v_shown || ' from h join paths p on p.ino = h.parent where ' || v_inside || ' and ' || format(c_first, 'p.path', v_inside, v_first_name)
		|| case when p_by_path then ' and (p.path, h.name) > ($13, $14) order by p.path, h.name' else ' order by h.nth' end || ' limit $17';

	if not p_by_path then
		loop
			execute v_source into v_inos, v_last using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos, v_paths, p_after_folder, p_after_name, greatest(p_limit, 100), v_path, v_left;
			exit when v_inos is null;
			return query execute v_lookup using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos, v_paths, p_after_folder, p_after_name, p_limit, v_path, v_left;
			get diagnostics v_n = row_count;
			v_left := v_left - v_n;
			exit when v_left = 0 or cardinality(v_inos) < greatest(p_limit, 100);
			p_after_ns := v_last;
			p_after_ino := v_inos[cardinality(v_inos)];
		end loop;
		return;
	end if;

	if v_sources is not null then
		execute v_source into v_inos, v_last using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, 9223372036854775807, 0::bigint,
			v_inos, v_paths, p_after_folder, p_after_name, c_few + 1, v_path, v_left;
		if v_inos is null then
			return;
		elsif cardinality(v_inos) <= c_few then
			return query execute v_lookup using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos, v_paths, p_after_folder, p_after_name, p_limit, v_path, v_left;
			return;
		end if;
	end if;

	with recursive tree (ino, path) as (
		select v_folder, v_path
		union all
		select n.ino, case when t.path = '' then e.name else t.path || '\x2f'::bytea || e.name end from tree t
			cross join lateral (select n.ino from mediafs.nodes n where n.drive_id = p_drive and n.parent = t.ino and n.parent <> 0 and n.ino <> 1 offset 0) n
			cross join lateral (select e.name from mediafs.entries e where e.drive_id = p_drive and e.ino = n.ino offset 0) e
			where not p_shallow)
	select array_agg(t.ino order by t.path), array_agg(t.path order by t.path) into v_inos, v_paths from tree t where t.path >= p_after_folder;
	v_first := 1;
	v_batch := 1;
	while v_left > 0 and v_first <= cardinality(v_inos) loop
		return query execute 'select h.ino, t.path, h.name, ' || v_shown || '
			from unnest($11, $12) with ordinality t (ino, path, nth)
			cross join lateral (select e.name, n.ino, ' || c_columns || ' from mediafs.entries e
				cross join lateral (select n.* from mediafs.nodes n where n.drive_id = $1 and n.ino = e.ino offset 0) n ' || c_facts || '
				where e.drive_id = $1 and e.parent = t.ino and e.name > case when t.path = $13 then $14 else '''' end and ' || v_fits || ' and '
				|| replace(replace(replace(format(c_first, 't.path', v_inside, v_first_name), 'h.nlink', 'n.nlink'), 'h.ino', 'n.ino'), 'h.name', 'e.name') || '
				order by e.name limit $17) h
			order by t.nth, h.name limit $17' using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos[v_first : v_first + v_batch - 1], v_paths[v_first : v_first + v_batch - 1], p_after_folder, p_after_name, p_limit, v_path, v_left;
		get diagnostics v_n = row_count;
		v_left := v_left - v_n;
		v_first := v_first + v_batch;
		v_batch := least(2 * v_batch, 256);
	end loop;
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

-- Searching -----------------------------------------------------------------------------------------------------------------

-- The drives whose assets a token may list, in the order of their names; of p_names, unless that is null, and from p_from on.
create function mediafs.listable_drives(p_token text, p_names text[], p_from text)
returns table (o_drive integer, o_name text, o_key bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_session record;
begin
	if p_token = 'guest' then
		return query select d.drive_id, 'public', d.asset_key from mediafs.drives d
			where d.drive_id = 1048575 and (p_names is null or 'public' = any (p_names));
		return;
	end if;
	select s.* into v_session from mediafs.signed_in(p_token) s;
	return query select d.drive_id, d.name::text, d.asset_key
		from (select d.drive_id, coalesce(d.owner, 'public') collate "C" as name, d.asset_key from mediafs.drives d
			where v_session.o_role = 'admin' or d.owner = v_session.o_user) d
		where (p_names is null or d.name = any (p_names)) and d.name >= p_from
		order by d.name;
end $$;
revoke all on function mediafs.listable_drives(text, text[], text) from public;
grant execute on function mediafs.listable_drives(text, text[], text) to mediafs;

-- A page of the assets of all drives that a token may list: drive_assets for one after the other, each of which asks for the token once more. Of a
-- page by creation, each drive adds what is newer than the oldest of a page that is full.
create function mediafs.find_assets(p_token text, p_names text[], p_folder bytea[], p_shallow boolean, p_regex text, p_types text[], p_job text,
	p_since bigint, p_until bigint, p_min bigint, p_max bigint, p_by_path boolean,
	p_after_drive text, p_after_ns bigint, p_after_ino bigint, p_after_folder bytea, p_after_name bytea, p_limit integer)
returns table (o_drive text, o_id uuid, o_ino bigint, o_folder bytea, o_name bytea, o_size bigint, o_job text, o_created bigint, o_mtime bigint,
	o_described boolean, o_type text, o_sha256 bytea, o_width integer, o_height integer, o_taken bigint, o_count bigint, o_at bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
	v_drive record;
	v_left integer := p_limit;
	v_newest bigint[] := '{}';
	v_n bigint[];
begin
	perform set_config('mediafs.token', p_token, true);
	for v_drive in select d.* from mediafs.listable_drives(p_token, p_names, case when p_by_path then p_after_drive else '' end) d loop
		perform set_config('mediafs.drive', v_drive.o_drive::text, true);
		v_n := '{}';
		for o_ino, o_folder, o_name, o_size, o_job, o_created, o_mtime, o_described, o_type, o_sha256, o_width, o_height, o_taken, o_count, o_at in
			select a.* from mediafs.drive_assets(v_drive.o_drive, p_folder, p_shallow, p_regex, p_types, p_job, p_since, p_until, p_min, p_max, p_by_path,
				p_after_ns, case when p_by_path or v_drive.o_name > p_after_drive collate "C" then 9223372036854775807
					when v_drive.o_name < p_after_drive collate "C" then -1 else p_after_ino end,
				case when v_drive.o_name = p_after_drive then p_after_folder else '' end,
				case when v_drive.o_name = p_after_drive then p_after_name else '' end, v_left) a loop
			o_drive := v_drive.o_name;
			o_id := mediafs.asset_id(v_drive.o_key, v_drive.o_drive, o_ino);
			v_n := v_n || o_created;
			return next;
		end loop;
		if p_by_path then
			v_left := v_left - cardinality(v_n);
			exit when v_left = 0;
		else
			select coalesce(array_agg(t.ns order by t.ns desc), '{}') into v_newest
				from (select u.ns from unnest(v_newest || v_n) u (ns) order by u.ns desc limit p_limit) t;
			p_since := greatest(p_since, v_newest[p_limit]);
		end if;
	end loop;
end $$;
revoke all on function mediafs.find_assets(text, text[], bytea[], boolean, text, text[], text, bigint, bigint, bigint, bigint, boolean, text, bigint, bigint, bytea, bytea, integer) from public;
grant execute on function mediafs.find_assets(text, text[], bytea[], boolean, text, text[], text, bigint, bigint, bigint, bigint, boolean, text, bigint, bigint, bytea, bytea, integer) to mediafs;

-- SQL for applications ------------------------------------------------------------------------------------------------------
--
-- An application that has the role mediafs and a user's token in mediafs.token works on the assets of the drive that the session may use, under the
-- same policies as a mount. See docs/sql.md. Everything here has a search_path of its own, so that the application's stays as it is.

-- Says that the drive is being changed by SQL. A mount that is alone would go on answering from memory (pgstore/sole.go) and can't be told in a transaction
-- that is not committed yet. So it asks for a lock as well that is held here until the transaction ends, and this waits, once, for longer than any
-- mount believes that it is alone. Afterwards a row of mediafs.mounts says for a minute that there is another mount, and what comes by SQL meanwhile
-- need not wait.
create function mediafs.announce(p_drive integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	c_sql constant uuid := '00000000-0000-8000-8000-000000000000';
	v_seen timestamptz;
begin
	if current_setting('mediafs.announced', true) = p_drive::text then -- in this transaction
		return;
	end if;
	perform pg_advisory_xact_lock_shared(1835361382, p_drive);
	select m.seen_at into v_seen from mediafs.mounts m where m.drive_id = p_drive and m.mount_id = c_sql;
	if v_seen is null or v_seen < clock_timestamp() - interval '50 s' then
		if exists (select from mediafs.mounts m where m.drive_id = p_drive and m.mount_id <> c_sql and m.seen_at > now() - interval '60 s') then
			perform pg_sleep(0.5);
		end if;
		v_seen := null;
	end if;
	-- One after the other says so: none waits for another's transaction.
	if (v_seen is null or v_seen < clock_timestamp() - interval '20 s') and pg_try_advisory_xact_lock(1835361383, p_drive) then
		insert into mediafs.mounts as m (drive_id, mount_id, host, seen_at) values (p_drive, c_sql, 'sql', clock_timestamp())
			on conflict (drive_id, mount_id) do update set seen_at = excluded.seen_at;
	end if;
	perform set_config('mediafs.announced', p_drive::text, true);
end $$;

-- A number that the drive has never used, as mounts take them.
create function mediafs.next_number(p_drive integer) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
	update mediafs.drives d set next_ino = d.next_ino + 1 where d.drive_id = p_drive returning d.next_ino - 1
$$;

-- The number of an asset of the session's drive, null if the id is none. Conditions on a view's ino find a row by its key.
create function mediafs.asset_ino(p_asset uuid) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
	select d.ino from (
		select ('x' || right(p_asset::text, 12))::bit(48)::bigint | (('x' || substr(p_asset::text, 22, 2))::bit(8)::bigint << 48)
			| ((('x' || substr(p_asset::text, 20, 2))::bit(8)::bigint & 63) << 56) as ino) a,
		lateral (select a.ino & 18014398509481983 as ino, d.asset_key, d.drive_id from mediafs.drives d where d.drive_id = mediafs.session_drive()) d
	where mediafs.asset_id(d.asset_key, d.drive_id, d.ino) = p_asset
$$;

-- The bytes [p_from, p_from + p_length) of content that is p_size bytes long.
create function mediafs.read_range(p_drive integer, p_blob bigint, p_size bigint, p_from bigint, p_length bigint) returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
	v_chunk integer := (select d.chunk_size from mediafs.drives d where d.drive_id = p_drive);
	v_end bigint := least(p_from + p_length, p_size);
begin
	if p_from < 0 or p_length < 0 then
		raise exception 'mediafs: a range begins at % and has % bytes', p_from, p_length using errcode = '22023'; -- invalid_parameter_value
	elsif v_end <= p_from then
		return '';
	end if;
	return (select string_agg(case when octet_length(r.data) = r.n then r.data else coalesce(r.data, '') || mediafs.zeros(r.n - coalesce(octet_length(r.data), 0)) end,
			''::bytea order by r.idx)
		from (select i.idx, least((i.idx + 1) * v_chunk, v_end)::integer - greatest(i.idx * v_chunk, p_from)::integer as n, substring(c.data
				from (greatest(p_from - i.idx * v_chunk, 0) + 1)::integer
				for (least((i.idx + 1) * v_chunk, v_end) - greatest(i.idx * v_chunk, p_from))::integer) as data
			from generate_series(p_from / v_chunk, (v_end - 1) / v_chunk) i (idx)
			left join mediafs.chunks c on c.drive_id = p_drive and c.blob = p_blob and c.idx between p_from / v_chunk and (v_end - 1) / v_chunk
				and c.idx = i.idx) r);
end $$;

create view mediafs.assets with (security_invoker = true) as
select
	mediafs.asset_id(d.asset_key, n.drive_id, n.ino) as id,
	d.owner as user_id, -- null: public
	n.job as job_id,
	mediafs.text_of(e.name) as filename,
	mediafs.asset_path(n.drive_id, e.parent, e.name) as path,
	n.size,
	f.mime_type::text as mime_type,
	encode(f.sha256, 'hex') as sha256,
	f.width,
	f.height,
	mediafs.at_ns(f.taken_ns) as taken_at,
	n.described, -- mime_type to taken_at are of the content as it is now
	true as stored_in_db,
	coalesce(a.count, 0) as access_count,
	mediafs.at_ns(a.at_ns) as last_accessed,
	mediafs.at_ns(n.created_ns) as created_at,
	mediafs.at_ns(n.mtime_ns) as updated_at,
	n.ino
from mediafs.drives d
join mediafs.nodes n on n.drive_id = d.drive_id
join mediafs.entries e on e.drive_id = d.drive_id and e.ino = n.ino
	and (n.nlink = 1 or e.position = (select min(o.position) from mediafs.entries o where o.drive_id = n.drive_id and o.ino = n.ino))
left join mediafs.facts f on f.drive_id = d.drive_id and f.ino = n.ino
left join mediafs.accesses a on a.drive_id = d.drive_id and a.ino = n.ino
where d.drive_id = (select mediafs.session_drive()) and n.mode & 61440 = 32768 and n.nlink > 0;

-- media_data is null where there is more than a value can be.
create view mediafs.media_blobs with (security_invoker = true) as
select
	mediafs.asset_id(d.asset_key, n.drive_id, n.ino) as asset_id,
	d.owner as user_id,
	f.mime_type::text as mime_type,
	n.size,
	case when n.size < 1000000000 then mediafs.read_range(n.drive_id, n.blob, n.size, 0, n.size) end as media_data,
	coalesce(a.count, 0) as access_count,
	mediafs.at_ns(a.at_ns) as last_accessed,
	mediafs.at_ns(n.created_ns) as created_at,
	mediafs.at_ns(n.mtime_ns) as updated_at,
	n.ino
from mediafs.drives d
join mediafs.nodes n on n.drive_id = d.drive_id
left join mediafs.facts f on f.drive_id = d.drive_id and f.ino = n.ino
left join mediafs.accesses a on a.drive_id = d.drive_id and a.ino = n.ino
where d.drive_id = (select mediafs.session_drive()) and n.mode & 61440 = 32768 and n.nlink > 0;

-- The session's drive, which is about to be changed for p_user: null, or its owner.
create function mediafs.changed_drive(p_user text, out o_drive integer, out o_chunk integer)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer := mediafs.session_writable_drive();
	v_owner text;
begin
	select d.drive_id, d.chunk_size, d.owner into o_drive, o_chunk, v_owner from mediafs.drives d where d.drive_id = v_drive;
	if p_user is not null and p_user is distinct from v_owner then
		raise exception 'mediafs: the session stores for %, not for the user %', coalesce('the user ' || quote_literal(v_owner), 'everybody'), quote_literal(p_user)
			using errcode = '42501', hint = 'Leave user_id out, or set mediafs.token to a token of that user.';
	end if;
	perform mediafs.announce(o_drive);
end $$;

-- Who takes care of what is removed: a mount that lives, which may have it open, or nobody.
create function mediafs.living_mount(p_drive integer) returns uuid
language sql stable set search_path = pg_catalog, pg_temp as $$
	select m.mount_id from mediafs.mounts m where m.drive_id = p_drive and m.mount_id <> '00000000-0000-8000-8000-000000000000'
		and m.seen_at > now() - interval '60 s' order by m.seen_at desc limit 1
$$;

-- A place is where a name is to be. p_path is a path from the root of the drive; folders that are missing are made, of the job p_job.
create function mediafs.place(p_drive integer, p_path text, p_job text, out o_parent bigint, out o_name bytea)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_names text[] := string_to_array(ltrim(p_path, '/'), '/');
	v_name text;
	v_node record;
	v_now bigint := (extract(epoch from clock_timestamp()) * 1000000000)::bigint;
	v_ino bigint;
begin
	foreach v_name in array v_names loop
		if v_name in ('', '.', '..') or octet_length(convert_to(v_name, 'UTF8')) > 255 then
			raise exception 'mediafs: no file can be called %', quote_literal(left(p_path, 300)) using errcode = '22023';
		end if;
	end loop;
	if v_names is null or cardinality(v_names) = 0 then
		raise exception 'mediafs: an asset needs a filename' using errcode = '22023';
	end if;
	o_parent := 1;
	foreach v_name in array trim_array(v_names, 1) loop
		select n.ino, n.mode into v_node from mediafs.entries e join mediafs.nodes n on n.drive_id = p_drive and n.ino = e.ino
			where e.drive_id = p_drive and e.parent = o_parent and e.name = convert_to(v_name, 'UTF8');
		if not found then
			v_ino := mediafs.next_number(p_drive);
			perform mediafs.make(p_drive, o_parent, convert_to(v_name, 'UTF8'), v_ino, 16384 + 493, 0, 0, 0, null, v_now);
			if p_job is not null then
				perform mediafs.set_job(p_drive, v_ino, p_job, 0, false, v_now);
			end if;
			o_parent := v_ino;
		elsif v_node.mode & 61440 <> 16384 then
			raise exception 'mediafs: % in % is no folder', quote_literal(v_name), quote_literal(p_path) using errcode = 'MF020';
		else
			o_parent := v_node.ino;
		end if;
	end loop;
	o_name := convert_to(v_names[cardinality(v_names)], 'UTF8');
	if exists (select from mediafs.entries e where e.drive_id = p_drive and e.parent = o_parent and e.name = o_name) then
		raise exception 'mediafs: % is there already', quote_literal(ltrim(p_path, '/')) using errcode = '23505'; -- unique_violation
	end if;
end $$;

create function mediafs.check_job(p_job text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
	if octet_length(p_job) > 255 then
		raise exception 'mediafs: a job id of % bytes, the longest has 255', octet_length(p_job) using errcode = '22023';
	elsif p_job = '' or p_job ~ '[\x01-\x1f\x7f\ufffd]' then
		raise exception 'mediafs: the job id % is not plain text', quote_literal(p_job) using errcode = '22023';
	end if;
end $$;

create function mediafs.insert_asset() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer;
	v_now bigint;
	v_place record;
	v_ino bigint;
	v_path text := new.path;
begin
	perform mediafs.check_job(new.job_id);
	if v_path is null then
		if new.filename like '%/%' then
			raise exception 'mediafs: the filename % has a slash', quote_literal(new.filename) using errcode = '22023', hint = 'Say where it is to be in path.';
		elsif new.job_id like '%/%' or new.job_id in ('.', '..') then
			raise exception 'mediafs: no folder can be called like the job %', quote_literal(new.job_id) using errcode = '22023', hint = 'Say where it is to be in path.';
		end if;
		v_path := coalesce(new.job_id || '/', '') || coalesce(new.filename, '');
	elsif new.filename is not null and new.filename <> substring(v_path from '[^/]*$') then
		raise exception 'mediafs: the path % does not end with the filename %', quote_literal(v_path), quote_literal(new.filename) using errcode = '22023';
	end if;
	select d.o_drive into v_drive from mediafs.changed_drive(new.user_id) d;
	select p.* into v_place from mediafs.place(v_drive, v_path, new.job_id) p;
	v_ino := mediafs.next_number(v_drive);
	v_now := (extract(epoch from clock_timestamp()) * 1000000000)::bigint;
	perform mediafs.make(v_drive, v_place.o_parent, v_place.o_name, v_ino, 32768 + 420, 0, 0, 0, null, v_now);
	if new.job_id is not null then
		perform mediafs.set_job(v_drive, v_ino, new.job_id, 0, false, v_now);
	end if;
	select a.* into new from mediafs.assets a where a.ino = v_ino;
	return new;
end $$;

create function mediafs.update_asset() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer;
	v_now bigint;
	v_place record;
	v_from record;
	v_path text := new.path;
begin
	if new.user_id is distinct from old.user_id then
		raise exception 'mediafs: an asset stays its owner''s' using errcode = '42501';
	elsif (new.id, new.size, new.mime_type, new.sha256, new.width, new.height, new.taken_at, new.described, new.stored_in_db, new.access_count,
			new.last_accessed, new.created_at, new.updated_at, new.ino) is distinct from
		(old.id, old.size, old.mime_type, old.sha256, old.width, old.height, old.taken_at, old.described, old.stored_in_db, old.access_count,
			old.last_accessed, old.created_at, old.updated_at, old.ino) then
		raise exception 'mediafs: of an asset, filename, path and job_id can be set' using errcode = '42501', hint = 'Content is set in mediafs.media_blobs.';
	end if;
	select d.o_drive into v_drive from mediafs.changed_drive(null) d;
	v_now := (extract(epoch from clock_timestamp()) * 1000000000)::bigint;
	if new.job_id is distinct from old.job_id then
		perform mediafs.check_job(new.job_id);
		perform mediafs.set_job(v_drive, old.ino, new.job_id, 0, false, v_now);
	end if;
	if new.filename is distinct from old.filename and new.path is not distinct from old.path then
		if new.filename like '%/%' then
			raise exception 'mediafs: the filename % has a slash', quote_literal(new.filename) using errcode = '22023', hint = 'Say where it is to be in path.';
		end if;
		v_path := left(old.path, length(old.path) - length(old.filename)) || new.filename;
	elsif new.filename is distinct from old.filename and new.filename <> substring(new.path from '[^/]*$') then
		raise exception 'mediafs: the path % does not end with the filename %', quote_literal(new.path), quote_literal(new.filename) using errcode = '22023';
	end if;
	if v_path is distinct from old.path then
		select e.parent, e.name into v_from from mediafs.entries e where e.drive_id = v_drive and e.ino = old.ino order by e.position limit 1;
		select p.* into v_place from mediafs.place(v_drive, v_path, null) p;
		perform mediafs.rename(v_drive, v_from.parent, v_from.name, v_place.o_parent, v_place.o_name, 1, mediafs.next_number(v_drive), v_now,
			'00000000-0000-8000-8000-000000000000', '{}');
	end if;
	select a.* into new from mediafs.assets a where a.ino = old.ino;
	return new;
end $$;

create function mediafs.delete_asset() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer := (select d.o_drive from mediafs.changed_drive(null) d);
	v_mount uuid := mediafs.living_mount(v_drive);
	v_now bigint := (extract(epoch from clock_timestamp()) * 1000000000)::bigint;
	v_name record;
begin
	for v_name in select e.parent, e.name from mediafs.entries e where e.drive_id = v_drive and e.ino = old.ino loop
		perform mediafs.unlink(v_drive, v_name.parent, v_name.name, v_now, coalesce(v_mount, '00000000-0000-8000-8000-000000000000'),
			case when v_mount is null then '{}' else array[old.ino] end);
	end loop;
	if v_mount is null then -- nobody else would for a while
		while mediafs.collect(v_drive, array(select r.blob from mediafs.removed r where r.drive_id = v_drive and r.ino = old.ino), 100000) loop
		end loop;
	end if;
	return old;
end $$;

-- Puts bytes at the end of a node that is locked.
create function mediafs.append_to(p_drive integer, p_chunk integer, p_ino bigint, p_data bytea) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_node mediafs.nodes;
	v_now bigint := (extract(epoch from clock_timestamp()) * 1000000000)::bigint;
	v_from bigint := 0; -- how much is stored
	v_length bigint := octet_length(p_data);
	v_to bigint;
begin
	select n.* into v_node from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino;
	while v_from < v_length loop
		-- Up to the end of a chunk, some MiB at a time.
		v_to := least(((v_node.size + 16777216) / p_chunk) * p_chunk - v_node.size + v_from, v_length);
		select p.* into v_node from (
			select array_agg(c.idx::integer order by c.idx) as idx, array_agg(case when c.stop - c.start = p_chunk then -1 when c.start = c.idx * p_chunk then -2
					else (c.start - c.idx * p_chunk)::integer end order by c.idx) as off,
				array_agg(substring(p_data from (c.start - v_node.size + v_from + 1)::integer for (c.stop - c.start)::integer) order by c.idx) as data
			from (select i.idx, greatest(i.idx * p_chunk, v_node.size) as start, least((i.idx + 1) * p_chunk, v_node.size + v_to - v_from) as stop
				from generate_series(v_node.size / p_chunk, (v_node.size + v_to - v_from - 1) / p_chunk) i (idx)) c) d,
			lateral mediafs.put(p_drive, p_ino, v_node.blob, d.idx, d.off, d.data, v_node.size + v_to - v_from, v_node.size, v_now, v_now) p;
		v_from := v_to;
	end loop;
	return v_node.size;
end $$;

-- Locks the node of an asset. With p_empty it has no content afterwards.
create function mediafs.open_asset(p_asset uuid, p_user text, p_empty boolean, out o_drive integer, out o_chunk integer, out o_ino bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
	select d.o_drive, d.o_chunk into o_drive, o_chunk from mediafs.changed_drive(p_user) d;
	select n.ino into o_ino from mediafs.nodes n where n.drive_id = o_drive and n.ino = mediafs.asset_ino(p_asset) and n.nlink > 0 and n.mode & 61440 = 32768 for update;
	if not found then
		raise exception 'mediafs: there is no asset %', p_asset using errcode = 'MF404';
	end if;
	if p_empty then
		perform mediafs.set_attr(o_drive, o_ino, 8, 0, 0, 0, 0, 0, 0, (extract(epoch from clock_timestamp()) * 1000000000)::bigint,
			mediafs.next_number(o_drive), o_chunk, coalesce(mediafs.living_mount(o_drive), '00000000-0000-8000-8000-000000000000'));
	end if;
end $$;

-- INSERT into media_blobs, and UPDATE of media_data.
create function mediafs.replace_content() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_asset record;
begin
	if tg_op = 'UPDATE' then
		if (new.asset_id, new.user_id, new.mime_type, new.size, new.access_count, new.last_accessed, new.created_at, new.updated_at, new.ino) is distinct from
			(old.asset_id, old.user_id, old.mime_type, old.size, old.access_count, old.last_accessed, old.created_at, old.updated_at, old.ino) then
			raise exception 'mediafs: of a blob, media_data can be set' using errcode = '42501';
		elsif new.media_data is not distinct from old.media_data then
			return new;
		end if;
	end if;
	if new.media_data is null then
		raise exception 'mediafs: media_data is null' using errcode = '22004', hint = 'For content in pieces: mediafs.append_data.'; -- null_value_not_allowed
	end if;
	select o.* into v_asset from mediafs.open_asset(new.asset_id, new.user_id, true) o;
	perform mediafs.append_to(v_asset.o_drive, v_asset.o_chunk, v_asset.o_ino, new.media_data);
	select b.asset_id, b.user_id, b.mime_type, b.size, new.media_data, b.access_count, b.last_accessed, b.created_at, b.updated_at, b.ino into new
		from mediafs.media_blobs b where b.ino = v_asset.o_ino;
	return new;
end $$;

create trigger insert_asset instead of insert on mediafs.assets for each row execute function mediafs.insert_asset();
create trigger update_asset instead of update on mediafs.assets for each row execute function mediafs.update_asset();
create trigger delete_asset instead of delete on mediafs.assets for each row execute function mediafs.delete_asset();
create trigger replace_content instead of insert or update on mediafs.media_blobs for each row execute function mediafs.replace_content();

-- Puts bytes at the end of an asset, and gives how many it has then.
create function mediafs.append_data(asset uuid, data bytea) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_asset record;
begin
	if data is null then
		raise exception 'mediafs: the data is null' using errcode = '22004';
	end if;
	select o.* into v_asset from mediafs.open_asset(asset, null, false) o;
	return mediafs.append_to(v_asset.o_drive, v_asset.o_chunk, v_asset.o_ino, data);
end $$;

-- Reads a range of an asset: fewer bytes at its end, none past it.
create function mediafs.read_data(asset uuid, start bigint, length integer) returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer := mediafs.session_drive();
	v_node record;
begin
	select n.blob, n.size into v_node from mediafs.nodes n where n.drive_id = v_drive and n.ino = mediafs.asset_ino(asset) and n.nlink > 0 and n.mode & 61440 = 32768;
	if not found then
		raise exception 'mediafs: there is no asset %', asset using errcode = 'MF404';
	end if;
	return mediafs.read_range(v_drive, v_node.blob, v_node.size, start, length);
end $$;

grant select, insert, update, delete on mediafs.assets to mediafs;
grant select, insert, update on mediafs.media_blobs to mediafs;
do $$
declare
	v_function regprocedure;
begin
	for v_function in select p.oid from pg_proc p where p.pronamespace = 'mediafs'::regnamespace and p.proname in ('announce', 'next_number', 'asset_ino', 'read_range',
		'changed_drive', 'living_mount', 'place', 'check_job', 'insert_asset', 'update_asset', 'delete_asset', 'append_to', 'open_asset', 'replace_content', 'append_data', 'read_data') loop
		execute format('revoke all on function %s from public', v_function);
		execute format('grant execute on function %s to mediafs', v_function);
	end loop;
end $$;
