-- What a drive may hold: bytes, as they are counted in mediafs.usage, and nodes. 0 is no limit.
--
-- The policy under which the worker adds to the usage looks at drives with limits. It is worked out with the rest of a statement, once that is
-- planned, and a drive without limits pays for looking at one column; a trigger's condition would be made ready anew for each statement, which takes 15 µs. In a
-- drive with limits, who adds to the usage takes a lock until the end of the transaction, in turn with all others who do, and looks at the sum: whoever
-- comes after sees it. So the sum of what was committed is never above a limit that was set before, whatever runs at once.

alter table mediafs.drives
	add column max_bytes bigint not null default 0 check (max_bytes >= 0),
	add column max_nodes bigint not null default 0 check (max_nodes >= 0);

alter table mediafs.usage add column limited boolean not null default false; -- the drive has a limit

-- A node gives back what it was charged with, and no more: otherwise two nodes with one blob, which nobody but a caller of set_attr with a number that is
-- in use can make, could give back one content twice. Not a constraint: that would be made ready anew for each statement.
alter policy worker_update on mediafs.nodes with check (allocated >= 0);

create policy owner_select on mediafs.usage for select to mediafs_owner using (true);
create policy owner_update on mediafs.usage for update to mediafs_owner using (true) with check (true);

-- Says that a row of the usage of a drive with limits may become this, or why not. If it was more before, it may.
create function mediafs.may_hold(p_drive integer, p_slot smallint, p_bytes bigint, p_nodes bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_was record;
	v_max record;
	v_others record;
begin
	select u.bytes, u.nodes into v_was from mediafs.usage u where u.drive_id = p_drive and u.slot = p_slot;
	if p_bytes <= v_was.bytes and p_nodes <= v_was.nodes then
		return true;
	elsif current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then -- it would not see what others have added
		raise exception 'mediafs: a drive with a quota can be added to at the isolation level read committed alone' using errcode = '0A000'; -- feature_not_supported
	end if;
	perform pg_advisory_xact_lock(1296649554, p_drive); -- MIQR
	select d.max_bytes as bytes, d.max_nodes as nodes into v_max from mediafs.drives d where d.drive_id = p_drive;
	select coalesce(sum(u.bytes), 0) as bytes, coalesce(sum(u.nodes), 0) as nodes into v_others from mediafs.usage u
		where u.drive_id = p_drive and u.slot <> p_slot;
	if v_max.bytes > 0 and p_bytes > v_was.bytes and v_others.bytes + p_bytes > v_max.bytes then
		raise exception 'mediafs: the drive may hold % bytes, and would have %', v_max.bytes, v_others.bytes + p_bytes using errcode = 'MF122';
	elsif v_max.nodes > 0 and p_nodes > v_was.nodes and v_others.nodes + p_nodes > v_max.nodes then
		raise exception 'mediafs: the drive may hold % files and folders, and would have %', v_max.nodes, v_others.nodes + p_nodes using errcode = 'MF122';
	end if;
	return true;
end $$;
revoke all on function mediafs.may_hold(integer, smallint, bigint, bigint) from public;
grant execute on function mediafs.may_hold(integer, smallint, bigint, bigint) to mediafs_worker;

-- It is asked before the row is locked, and again if another has changed the row meanwhile.
alter policy worker_update on mediafs.usage with check (not limited or mediafs.may_hold(drive_id, slot, bytes, nodes));

-- Sets the limits of a drive by its name; -1 leaves one as it is (blobstore.KeepLimit). It waits for those who have added to the drive and not committed: they did not look.
create function mediafs.limit_drive(p_name text, p_max_bytes bigint, p_max_nodes bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_drive integer;
begin
	select d.drive_id into v_drive from mediafs.drives d where d.owner = p_name or p_name = 'public' and d.drive_id = 1048575;
	if not found then
		raise exception 'mediafs: there is no drive %', quote_literal(p_name) using errcode = 'MF404';
	elsif p_max_bytes < -1 or p_max_nodes < -1 then
		raise exception 'mediafs: a limit is 0 or more' using errcode = 'MF022';
	end if;
	perform from mediafs.usage u where u.drive_id = v_drive order by u.slot for update;
	update mediafs.drives d
		set max_bytes = case p_max_bytes when -1 then d.max_bytes else p_max_bytes end,
			max_nodes = case p_max_nodes when -1 then d.max_nodes else p_max_nodes end
		where d.drive_id = v_drive;
	update mediafs.usage u set limited = d.max_bytes > 0 or d.max_nodes > 0 from mediafs.drives d where u.drive_id = v_drive and d.drive_id = v_drive;
end $$;
revoke all on function mediafs.limit_drive(text, bigint, bigint) from public;

-- The same for an admin.
create function mediafs.set_quota(p_token text, p_name text, p_max_bytes bigint, p_max_nodes bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if p_token = 'guest' or (select s.o_role <> 'admin' from mediafs.signed_in(p_token) s) then
		raise exception 'mediafs: only an admin sets what a drive may hold' using errcode = '42501'; -- insufficient_privilege
	end if;
	perform mediafs.limit_drive(p_name, p_max_bytes, p_max_nodes);
end $$;

-- What drives may hold and do: of all (p_owner null), or of one user's.
create function mediafs.all_quotas(p_owner text)
returns table (name text, owner text, max_bytes bigint, max_nodes bigint, bytes bigint, nodes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
	return query select coalesce(d.owner, 'public'), coalesce(d.owner, ''), d.max_bytes, d.max_nodes, sum(u.bytes)::bigint, sum(u.nodes)::bigint
		from mediafs.drives d join mediafs.usage u on u.drive_id = d.drive_id
		where p_owner is null or d.owner = p_owner
		group by d.drive_id order by coalesce(d.owner, 'public') collate "C";
end $$;
revoke all on function mediafs.all_quotas(text) from public;

-- The same for a session.
create function mediafs.quotas(p_token text)
returns table (name text, owner text, max_bytes bigint, max_nodes bigint, bytes bigint, nodes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_session record;
begin
	if p_token = 'guest' then
		raise exception 'mediafs: a guest sees no quota' using errcode = '42501'; -- insufficient_privilege
	end if;
	select s.* into v_session from mediafs.signed_in(p_token) s;
	return query select q.* from mediafs.all_quotas(case when v_session.o_role = 'admin' then null else v_session.o_user end) q;
end $$;
revoke all on function mediafs.set_quota(text, text, bigint, bigint), mediafs.quotas(text) from public;
grant execute on function mediafs.set_quota(text, text, bigint, bigint), mediafs.quotas(text) to mediafs;

-- No way round ---------------------------------------------------------------------------------------------------------------
--
-- What is counted is changed by the operations of the worker alone, which count it. Two were not the worker's yet: they do as before, and
-- ask first.

create policy worker_update on mediafs.removed for update to mediafs_worker using (drive_id = current_setting('mediafs.checked')::integer) with check (true);
create policy worker_delete on mediafs.removed for delete to mediafs_worker using (drive_id = current_setting('mediafs.checked')::integer);
grant update (removed_at), delete on mediafs.removed to mediafs_worker; -- it updates none: who locks a row needs the right to

alter function mediafs.copy_range(integer, bigint, bigint, bigint, bigint, bigint, bigint, integer) rename to copy_admitted;
alter function mediafs.collect(integer, bigint[], integer) rename to collect_admitted;
revoke all on function mediafs.copy_admitted(integer, bigint, bigint, bigint, bigint, bigint, bigint, integer),
	mediafs.collect_admitted(integer, bigint[], integer), mediafs.slice(integer, bigint, bigint, integer, integer) from public;
grant execute on function mediafs.copy_admitted(integer, bigint, bigint, bigint, bigint, bigint, bigint, integer),
	mediafs.collect_admitted(integer, bigint[], integer), mediafs.slice(integer, bigint, bigint, integer, integer) to mediafs_worker;

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Copies p_n bytes of p_from_blob from p_from on to the node p_ino from p_to on: see 008_copy.sql.
create function mediafs.copy_range(p_drive integer, p_from_blob bigint, p_from bigint, p_n bigint, p_ino bigint, p_to bigint, p_now bigint, p_chunk integer)
returns setof mediafs.nodes
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return query select * from mediafs.copy_admitted(p_drive, p_from_blob, p_from, p_n, p_ino, p_to, p_now, p_chunk);
end $$;

-- Takes away up to p_limit chunks of the removed blobs p_blobs: see 003_collect.sql and 009_check.sql.
create function mediafs.collect(p_drive integer, p_blobs bigint[], p_limit integer) returns boolean
language plpgsql security definer as $$
begin
	p_drive := mediafs.admit(p_drive);
	return mediafs.collect_admitted(p_drive, p_blobs, p_limit);
end $$;

revoke all on function mediafs.copy_range(integer, bigint, bigint, bigint, bigint, bigint, bigint, integer), mediafs.collect(integer, bigint[], integer) from public;
grant execute on function mediafs.copy_range(integer, bigint, bigint, bigint, bigint, bigint, bigint, integer), mediafs.collect(integer, bigint[], integer) to mediafs;

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;

revoke insert, update, delete on mediafs.chunks, mediafs.usage from mediafs;
revoke insert, delete, update (parent, blob, size, allocated, uid, gid, mtime_ns, ctime_ns, mode, nlink) on mediafs.nodes from mediafs;
revoke insert on mediafs.removed from mediafs;
revoke update (data) on mediafs.chunks from mediafs;
revoke update (bytes, nodes) on mediafs.usage from mediafs;
