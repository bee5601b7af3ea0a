-- Roles: an admin may use every drive, and whoever has not signed in may read the public one.
--
-- A mount says in mediafs.drive, beside the token, which drive it means: a number, or '' for the session's own. Anybody with the
-- mounting login can set both, so neither is believed: the token decides what the number may be. A guest's token is the word guest.

-- The public drive ----------------------------------------------------------------------------------------------------------
--
-- It has no owner, and the largest number there is, so that policies know it without looking.

alter table mediafs.drives alter column owner drop not null;
alter table mediafs.drives alter column drive_id set maxvalue 1048574;
alter table mediafs.drives add constraint public_drive check ((owner is null) = (drive_id = 1048575));
insert into mediafs.drives (drive_id, owner, chunk_size) overriding system value values (1048575, null, 65536);
insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
	select 1048575, 1, 1, 16384 + 493, 2, 0, 0, t, t, t -- S_IFDIR, 0755
	from (select (extract(epoch from now()) * 1000000000)::bigint as t) n;
insert into mediafs.usage (drive_id, slot) select 1048575, s from generate_series(0, 7) s;

-- An account knows its drive, so that checking its token is one look into one index. A drive never changes hands.
alter table mediafs.accounts add column drive_id integer references mediafs.drives on delete set null;
update mediafs.accounts a set drive_id = d.drive_id from mediafs.drives d where d.owner = a.user_id;

-- Who is asking -------------------------------------------------------------------------------------------------------------
--
-- pg_temp is named last in every search_path here: where it is not named it comes first for tables and types, and a caller's own type
-- called text, with a CHECK of the caller's, would run with the rights of mediafs_owner. What has no search_path of its own names
-- every schema, of types too.

-- What a session of that role, expiry and ban, and with that drive of its own, may use of what it wants; or an error that says why not.
create function mediafs.permitted_drive(p_role text, p_expires_at timestamptz, p_banned boolean, p_own integer, p_wanted text) returns integer
language plpgsql stable as $$
begin
	if p_banned then
		raise exception 'mediafs: the user is banned' using errcode = 'MF003';
	elsif p_expires_at operator(pg_catalog.<=) pg_catalog.now() then
		raise exception 'mediafs: the session has expired' using errcode = 'MF002';
	elsif p_wanted is null or p_wanted operator(pg_catalog.=) '' then
		if p_own is null then
			raise exception 'mediafs: the user has no drive' using errcode = 'MF001';
		end if;
		return p_own;
	elsif p_role operator(pg_catalog.=) 'admin' or p_wanted operator(pg_catalog.=) p_own::pg_catalog.text then
		return p_wanted::pg_catalog.int4;
	end if;
	-- Not MF404: a mount would take its files for removed, and let go of what it has still to store.
	raise exception 'mediafs: the session may not use this drive' using errcode = 'MF004';
end $$;

-- The drive that a session of the web application may use. `mediafs init` puts the application's own tables here when it finds them,
-- as in app_session.
create function mediafs.app_drive(p_token text, p_wanted text) returns integer
language plpgsql stable security definer as $$
begin
	raise exception 'mediafs: the token is not known' using errcode = 'MF001';
end $$;

-- What session_drive says where it does not know at once.
create function mediafs.any_session_drive() returns integer
language plpgsql stable security definer as $$
declare
	v_token pg_catalog.text := pg_catalog.current_setting('mediafs.token', true);
	v_wanted pg_catalog.text := pg_catalog.current_setting('mediafs.drive', true);
	v_role pg_catalog.text;
	v_own pg_catalog.int4;
begin
	if pg_catalog.starts_with(v_token, 'mfs_') then
		select a.role, a.drive_id into v_role, v_own from mediafs.accounts a
			where a.token_hash operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to(v_token, 'UTF8'));
		if v_own is not null and (v_wanted is null or v_wanted operator(pg_catalog.=) '') then
			return v_own;
		elsif v_role is null then
			raise exception 'mediafs: the token is not known' using errcode = 'MF001';
		elsif v_own is null then -- not opened since the account was made
			v_own := (select d.drive_id from mediafs.drives d join mediafs.accounts a on a.user_id operator(pg_catalog.=) d.owner
				where a.token_hash operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to(v_token, 'UTF8')));
		end if;
		return mediafs.permitted_drive(v_role, null, false, v_own, v_wanted);
	elsif v_token operator(pg_catalog.=) 'guest' then
		return 1048575;
	elsif v_token is null or v_token operator(pg_catalog.=) '' then
		raise exception 'mediafs: no session' using errcode = 'MF001';
	end if;
	return mediafs.app_drive(v_token, v_wanted);
end $$;

-- The drive that the session in mediafs.token and mediafs.drive may read, or an error that says why there is none. Every policy asks
-- it, once a statement for each table, so it is PL/pgSQL (plans are kept), names every schema (no SET clause has to run), and for a user's own
-- drive has one query to ask and as few expressions as can be: each is made ready anew in each transaction. `mediafs init` puts the
-- query of the application's own tables here.
create or replace function mediafs.session_drive() returns integer
language plpgsql stable security definer as $$
declare
	v_drive pg_catalog.int4;
begin
	select a.drive_id into v_drive from mediafs.accounts a
		where a.token_hash operator(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.current_setting('mediafs.token', true), 'UTF8'))
			and coalesce(pg_catalog.current_setting('mediafs.drive', true), '') operator(pg_catalog.=) '';
	if v_drive is null then
		v_drive := mediafs.any_session_drive();
	end if;
	return v_drive;
end $$;

-- The drive that the session may change: an error for a guest.
create function mediafs.session_writable_drive() returns integer
language plpgsql stable security definer as $$
begin
	if pg_catalog.current_setting('mediafs.token', true) operator(pg_catalog.=) 'guest' then
		raise exception 'mediafs: the public drive is for guests to read' using errcode = '25006'; -- read_only_sql_transaction
	end if;
	return mediafs.session_drive();
end $$;

-- Whose token it is. No row: nobody's.
create or replace function mediafs.whoami(p_token text)
returns table (user_id text, role text, expires_at timestamptz, banned boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
	if starts_with(p_token, 'mfs_') then
		return query select a.user_id, a.role, null::timestamptz, false
			from mediafs.accounts a where a.token_hash = sha256(convert_to(p_token, 'UTF8'));
	else
		return query select s.user_id, s.role, s.expires_at, s.banned from mediafs.app_session(p_token) s;
	end if;
end $$;

-- The same of a session that lasts, or an error that says why it does not.
create function mediafs.signed_in(p_token text, out o_user text, out o_role text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_session record;
begin
	select w.* into v_session from mediafs.whoami(p_token) w;
	if not found or v_session.user_id = 'public' then
		raise exception 'mediafs: the token is not known' using errcode = 'MF001';
	elsif v_session.banned then
		raise exception 'mediafs: the user is banned' using errcode = 'MF003';
	elsif v_session.expires_at <= now() then
		raise exception 'mediafs: the session has expired' using errcode = 'MF002';
	end if;
	o_user := v_session.user_id;
	o_role := v_session.role;
end $$;

-- Makes the drive of the token's user if it is not there, and returns it.
create or replace function mediafs.open_drive(p_token text, p_chunk_size integer, p_now_ns bigint)
returns table (drive_id integer, chunk_size integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
	v_user text := (select s.o_user from mediafs.signed_in(p_token) s);
	v_drive integer;
begin
	if not exists (select from mediafs.drives d where d.owner = v_user) then
		insert into mediafs.drives (owner, chunk_size) values (v_user, p_chunk_size)
			on conflict do nothing returning drive_id into v_drive;
		if found then
			insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
				values (v_drive, 1, 1, 16384 + 448, 2, 0, 0, p_now_ns, p_now_ns, p_now_ns); -- S_IFDIR, 0700
			insert into mediafs.usage (drive_id, slot) select v_drive, s from generate_series(0, 7) s;
		end if;
	end if;
	update mediafs.accounts a set drive_id = d.drive_id from mediafs.drives d
		where d.owner = v_user and a.user_id = v_user and a.drive_id is distinct from d.drive_id;
	return query select d.drive_id, d.chunk_size from mediafs.drives d where d.owner = v_user;
end $$;

-- The drive of a name, public for the one without an owner. No row: it is not there, or not for this session.
create function mediafs.find_drive(p_token text, p_name text)
returns table (drive_id integer, chunk_size integer)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_session record;
begin
	if p_token = 'guest' then
		return query select d.drive_id, d.chunk_size from mediafs.drives d where p_name = 'public' and d.owner is null and d.drive_id = 1048575;
		return;
	end if;
	select s.* into v_session from mediafs.signed_in(p_token) s;
	if p_name = 'public' then
		return query select d.drive_id, d.chunk_size from mediafs.drives d where v_session.o_role = 'admin' and d.drive_id = 1048575;
	elsif v_session.o_role = 'admin' or p_name = v_session.o_user then
		return query select d.drive_id, d.chunk_size from mediafs.drives d where d.owner = p_name;
	end if;
end $$;

-- A page of all drives, for an admin.
create function mediafs.list_drives(p_token text, p_after integer, p_limit integer)
returns table (drive_id integer, name text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
	if p_token = 'guest' or (select s.o_role <> 'admin' from mediafs.signed_in(p_token) s) then
		raise exception 'mediafs: only an admin sees which drives there are' using errcode = '42501'; -- insufficient_privilege
	end if;
	return query select d.drive_id, coalesce(d.owner, 'public') from mediafs.drives d
		where d.drive_id > p_after order by d.drive_id limit p_limit;
end $$;

revoke all on function mediafs.permitted_drive(text, timestamptz, boolean, integer, text), mediafs.app_drive(text, text), mediafs.any_session_drive(),
	mediafs.session_writable_drive(), mediafs.signed_in(text), mediafs.find_drive(text, text), mediafs.list_drives(text, integer, integer) from public;
grant execute on function mediafs.session_writable_drive(), mediafs.find_drive(text, text), mediafs.list_drives(text, integer, integer) to mediafs;

-- Who may change what -------------------------------------------------------------------------------------------------------
--
-- Every row that is changed is of the session's drive, and if that is the public one, of a session that may change it: both in one call,
-- for between two calls a statement can set another token. Other drives are within no guest's reach, so they need no second call.

do $$
declare
	v_policy record;
begin
	for v_policy in select p.polname, c.relname, p.polcmd from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
		where c.relnamespace = 'mediafs'::regnamespace and p.polname in ('own_insert', 'own_update', 'own_delete') loop
		execute format('alter policy %I on mediafs.%I %s (drive_id = mediafs.session_drive() and (drive_id <> 1048575 or drive_id = mediafs.session_writable_drive()))',
			v_policy.polname, v_policy.relname, case v_policy.polcmd when 'a' then 'with check' else 'using' end);
	end loop;
end $$;
