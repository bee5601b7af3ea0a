-- An admin makes the drives of others: what a whole store is moved with. Until then a drive was made by its owner alone, when they opened it first.

-- The drive of an owner, empty, unless it is there.
create function mediafs.add_drive(p_owner text, p_chunk_size integer, p_now_ns bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer;
begin
	if exists (select from mediafs.drives d where d.owner = p_owner) then
		return;
	end if;
	insert into mediafs.drives (owner, chunk_size) values (p_owner, p_chunk_size)
		on conflict do nothing returning drive_id into v_drive;
	if found then
		insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			values (v_drive, 1, 1, 16384 + 448, 2, 0, 0, p_now_ns, p_now_ns, p_now_ns); -- S_IFDIR, 0700
		insert into mediafs.usage (drive_id, slot) select v_drive, s from generate_series(0, 7) s;
	end if;
end $$;

create or replace function mediafs.open_drive(p_token text, p_chunk_size integer, p_now_ns bigint)
returns table (drive_id integer, chunk_size integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
	v_user text := (select s.o_user from mediafs.signed_in(p_token) s);
begin
	perform mediafs.add_drive(v_user, p_chunk_size, p_now_ns);
	update mediafs.accounts a set drive_id = d.drive_id from mediafs.drives d
		where d.owner = v_user and a.user_id = v_user and a.drive_id is distinct from d.drive_id;
	return query select d.drive_id, d.chunk_size from mediafs.drives d where d.owner = v_user;
end $$;

-- For an admin. The id is one that a user can have (auth.UserID).
create function mediafs.make_drive(p_token text, p_owner text, p_chunk_size integer, p_now_ns bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if p_token = 'guest' or (select s.o_role <> 'admin' from mediafs.signed_in(p_token) s) then
		raise exception 'mediafs: only an admin makes drives of others' using errcode = '42501'; -- insufficient_privilege
	elsif p_owner = 'public' or p_owner !~ '^[A-Za-z0-9_@+=][A-Za-z0-9_.@+=-]{0,127}$' then
		raise exception 'mediafs: no user can be called that' using errcode = '22023'; -- invalid_parameter_value
	end if;
	perform mediafs.add_drive(p_owner, p_chunk_size, p_now_ns);
end $$;

revoke all on function mediafs.add_drive(text, integer, bigint), mediafs.make_drive(text, text, integer, bigint) from public;
grant execute on function mediafs.make_drive(text, text, integer, bigint) to mediafs;
