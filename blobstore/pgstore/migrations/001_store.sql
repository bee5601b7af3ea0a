-- A store of drives. Run by mediafs_owner, which owns everything here and cannot sign in; mounts use the role mediafs.
--
-- Every table of content begins its primary key with drive_id: one drive is one contiguous range of each index, can be one
-- partition, and one shard of a distributed Postgres. Times are nanoseconds since 1970 (timestamptz keeps microseconds only);
-- names and targets are bytea (a Linux name is bytes); uids are bigint (they are unsigned 32-bit numbers).

create table mediafs.accounts (
	user_id    text primary key,
	role       text not null check (role in ('user', 'admin')),
	token_hash bytea not null unique check (octet_length(token_hash) = 32), -- SHA-256; the token itself is nowhere
	created_at timestamptz not null default now()
);

create table mediafs.drives (
	drive_id   integer generated always as identity primary key check (drive_id between 1 and 1048575), -- 20 bits: see blobstore.DriveID
	owner      text unique not null, -- a user id
	chunk_size integer not null check (chunk_size between 16384 and 1048576),
	next_ino   bigint not null default 16, -- numbers are handed to mounts in blocks and never used again
	created_at timestamptz not null default now()
);

-- A node. size, allocated, mtime_ns and the chunks of its blob always change in one transaction.
-- The widest columns come first, so that none is padded.
create table mediafs.nodes (
	ino       bigint not null,
	parent    bigint not null default 0,  -- of a folder: the folder it is in (the root's is itself); of others: 0
	blob      bigint not null default 0,  -- of a regular file: the number its chunks have; a file cut to nothing gets a new one
	size      bigint not null default 0,
	allocated bigint not null default 0,  -- bytes in its chunks
	uid       bigint not null,
	gid       bigint not null,
	atime_ns  bigint not null,
	mtime_ns  bigint not null,
	ctime_ns  bigint not null,
	rdev      bigint not null default 0,
	drive_id  integer not null,
	mode      integer not null,           -- type and permissions, as st_mode
	nlink     integer not null,
	target    bytea,                      -- of a symbolic link
	primary key (drive_id, ino)
) with (fillfactor = 80); -- room to update times in place

-- A name in a folder. position is where listing goes on: a number of the drive's own, new for every name, so that a listing
-- resumes exactly whatever has come and gone meanwhile.
create table mediafs.entries (
	parent   bigint not null,
	position bigint not null,
	ino      bigint not null,
	drive_id integer not null,
	name     bytea not null check (octet_length(name) between 1 and 255),
	primary key (drive_id, parent, name)
);
-- The index of listings. It is of -parent, so that finding a name can't use it: to a planner without statistics, or with those of
-- many small folders, both indexes look alike, and through this one a name is found by reading its whole folder.
create unique index entries_position on mediafs.entries (drive_id, (-parent), position);

-- A piece of a blob: bytes [idx * chunk_size, idx * chunk_size + length). What is missing reads as zero.
create table mediafs.chunks (
	blob     bigint not null,
	drive_id integer not null,
	idx      integer not null,
	data     bytea not null,
	primary key (drive_id, blob, idx)
);
alter table mediafs.chunks alter column data set storage external; -- photos and videos do not compress; ranges are read without the rest

create table mediafs.xattrs (
	ino      bigint not null,
	drive_id integer not null,
	name     bytea not null check (octet_length(name) between 1 and 255),
	value    bytea not null check (octet_length(value) <= 65536),
	primary key (drive_id, ino, name)
);
alter table mediafs.xattrs alter column value set storage external;

-- What was removed and is to be collected: chunks of a blob that no node has any more, and with ino the node itself, kept
-- because a mount may have it open.
create table mediafs.removed (
	blob       bigint not null,
	ino        bigint not null default 0,
	mount_id   uuid not null,  -- the mount that removed it, and that collects it while it lives
	drive_id   integer not null,
	removed_at timestamptz not null default now(),
	primary key (drive_id, blob)
);

-- A mount that is alive says so at least every 10 seconds.
create table mediafs.mounts (
	mount_id   uuid not null,
	drive_id   integer not null,
	host       text not null,
	started_at timestamptz not null default now(),
	seen_at    timestamptz not null default now(),
	primary key (drive_id, mount_id)
);

-- What a drive holds. A transaction adds to one of eight rows, by its backend, so that writers do not wait for each other;
-- the sum is the truth.
create table mediafs.usage (
	bytes    bigint not null default 0,
	nodes    bigint not null default 0,
	drive_id integer not null,
	slot     smallint not null check (slot between 0 and 7),
	primary key (drive_id, slot)
) with (fillfactor = 50);

-- Who is asking ------------------------------------------------------------------------------------------------------------

-- The session that a token of the web application proves. `mediafs init` puts the application's own tables here when it
-- finds them (see package betterauth); without an application there is none.
create function mediafs.app_session(p_token text)
returns table (user_id text, role text, expires_at timestamptz, banned boolean)
language plpgsql stable security definer as $$
begin
	return;
end $$;

-- The drive that the token in mediafs.token may use, or an error that says why there is none. Every policy below asks it, so
-- it is PL/pgSQL (plans are kept), names every operator's schema (nothing in the caller's search_path or temporary schema can
-- take its place, and no SET clause has to run), and looks up by keys alone.
create function mediafs.session_drive() returns integer
language plpgsql stable security definer as $$
declare
	v_token text := pg_catalog.current_setting('mediafs.token', true);
	v_drive integer;
	v_session record;
begin
	if v_token is null or v_token operator(pg_catalog.=) '' then
		raise exception 'mediafs: no session' using errcode = 'MF001';
	end if;
	if pg_catalog.starts_with(v_token, 'mfs_') then
		select d.drive_id into v_drive
		from mediafs.accounts a join mediafs.drives d on d.owner operator(pg_catalog.=) a.user_id
		where a.token_hash operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to(v_token, 'UTF8'));
		if not found then
			raise exception 'mediafs: the token is not known' using errcode = 'MF001';
		end if;
		return v_drive;
	end if;
	select s.expires_at, s.banned, d.drive_id into v_session
	from mediafs.app_session(v_token) s join mediafs.drives d on d.owner operator(pg_catalog.=) s.user_id;
	if not found then
		raise exception 'mediafs: the token is not known' using errcode = 'MF001';
	elsif v_session.banned then
		raise exception 'mediafs: the user is banned' using errcode = 'MF003';
	elsif v_session.expires_at operator(pg_catalog.<=) pg_catalog.now() then
		raise exception 'mediafs: the session has expired' using errcode = 'MF002';
	end if;
	return v_session.drive_id;
end $$;

-- Whose token it is. No row: nobody's.
create function mediafs.whoami(p_token text)
returns table (user_id text, role text, expires_at timestamptz, banned boolean)
language plpgsql stable security definer set search_path = pg_catalog as $$
begin
	if starts_with(p_token, 'mfs_') then
		return query select a.user_id, a.role, null::timestamptz, false
			from mediafs.accounts a where a.token_hash = sha256(convert_to(p_token, 'UTF8'));
	else
		return query select s.user_id, s.role, s.expires_at, s.banned from mediafs.app_session(p_token) s;
	end if;
end $$;

-- Makes the drive of the token's user if it is not there, and returns it.
create function mediafs.open_drive(p_token text, p_chunk_size integer, p_now_ns bigint)
returns table (drive_id integer, chunk_size integer)
language plpgsql security definer set search_path = pg_catalog as $$
#variable_conflict use_column
declare
	v_user text;
	v_drive integer;
begin
	select w.user_id into v_user from mediafs.whoami(p_token) w
		where not w.banned and (w.expires_at is null or w.expires_at > now());
	if not found then
		raise exception 'mediafs: the token is not known' using errcode = 'MF001';
	end if;
	if not exists (select from mediafs.drives d where d.owner = v_user) then
		insert into mediafs.drives (owner, chunk_size) values (v_user, p_chunk_size)
			on conflict do nothing returning drive_id into v_drive;
		if found then
			insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
				values (v_drive, 1, 1, 16384 + 448, 2, 0, 0, p_now_ns, p_now_ns, p_now_ns); -- S_IFDIR, 0700
			insert into mediafs.usage (drive_id, slot) select v_drive, s from generate_series(0, 7) s;
		end if;
	end if;
	return query select d.drive_id, d.chunk_size from mediafs.drives d where d.owner = v_user;
end $$;

revoke all on function mediafs.app_session(text) from public;
revoke all on function mediafs.session_drive() from public;
revoke all on function mediafs.whoami(text) from public;
revoke all on function mediafs.open_drive(text, integer, bigint) from public;
grant execute on function mediafs.session_drive(), mediafs.whoami(text), mediafs.open_drive(text, integer, bigint) to mediafs;

-- Who may touch what -------------------------------------------------------------------------------------------------------
--
-- Forced, so that not even the owner of the tables goes round it. The owner itself may read accounts and drives, which the
-- functions above need, and make the first rows of a drive: nothing of any drive's content.
-- drive_id can't be updated by anyone, so an updated row needs no second check.

alter table mediafs.accounts enable row level security;
alter table mediafs.accounts force row level security;
create policy owner_all on mediafs.accounts to mediafs_owner using (true);

alter table mediafs.drives enable row level security;
alter table mediafs.drives force row level security;
create policy owner_all on mediafs.drives to mediafs_owner using (true);
create policy own_select on mediafs.drives for select to mediafs using (drive_id = mediafs.session_drive());
create policy own_update on mediafs.drives for update to mediafs using (drive_id = mediafs.session_drive()) with check (true);
grant select, update (next_ino) on mediafs.drives to mediafs;

create policy owner_root on mediafs.nodes for insert to mediafs_owner with check (ino = 1);
create policy owner_slots on mediafs.usage for insert to mediafs_owner with check (bytes = 0 and nodes = 0);

do $$
declare
	v_table text;
begin
	foreach v_table in array array['nodes', 'entries', 'chunks', 'xattrs', 'removed', 'mounts', 'usage'] loop
		execute format('alter table mediafs.%I enable row level security', v_table);
		execute format('alter table mediafs.%I force row level security', v_table);
		execute format('create policy own_select on mediafs.%I for select to mediafs using (drive_id = mediafs.session_drive())', v_table);
		execute format('create policy own_insert on mediafs.%I for insert to mediafs with check (drive_id = mediafs.session_drive())', v_table);
		execute format('create policy own_update on mediafs.%I for update to mediafs using (drive_id = mediafs.session_drive()) with check (true)', v_table);
		execute format('create policy own_delete on mediafs.%I for delete to mediafs using (drive_id = mediafs.session_drive())', v_table);
		execute format('grant select, insert, delete on mediafs.%I to mediafs', v_table);
	end loop;
end $$;
grant update (parent, blob, size, allocated, uid, gid, atime_ns, mtime_ns, ctime_ns, mode, nlink) on mediafs.nodes to mediafs;
grant update (parent, position, ino, name) on mediafs.entries to mediafs;
grant update (data) on mediafs.chunks to mediafs;
grant update (value) on mediafs.xattrs to mediafs;
grant update (seen_at) on mediafs.mounts to mediafs;
grant update (mount_id, removed_at) on mediafs.removed to mediafs;
grant update (bytes, nodes) on mediafs.usage to mediafs;
