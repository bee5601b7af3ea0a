-- Locks that programs set on files, flock(2) and fcntl(2), kept for all mounts of a drive.
--
-- A row is all that one mount holds of one node; which of its processes hold what, the mount knows (package locktable). It counts while
-- the mount lives, which for locks means: while it has been heard of within 30 seconds. That is only believed of one mount by another
-- that has itself been heard of all that time: else the database may have been away, for both.
--
-- Rows are committed without waiting for the disk, so a crash of the server may lose the last ones. Every mount says again what it holds
-- before it is next heard of (hold); until then, nobody gets a new lock on the drive.

create table mediafs.locks (
	ino       bigint not null,
	mount_id  uuid not null,
	seq       bigint not null, -- the mount's count of its claims: one that comes late does not undo a later one
	drive_id  integer not null,
	low       bigint[] not null, -- of each lock: its first byte,
	high      bigint[] not null, -- its last,
	pid       bigint[] not null, -- the process on the mounting machine,
	flock     boolean[] not null, -- which of the two kinds it is,
	exclusive boolean[] not null, -- and whether it excludes every other
	primary key (drive_id, ino, mount_id)
) with (fillfactor = 70);

alter table mediafs.locks enable row level security;
alter table mediafs.locks force row level security;
create policy own_select on mediafs.locks for select to mediafs using (drive_id = mediafs.session_drive());
create policy own_insert on mediafs.locks for insert to mediafs
	with check (drive_id = mediafs.session_drive() and (drive_id <> 1048575 or drive_id = mediafs.session_writable_drive()));
create policy own_update on mediafs.locks for update to mediafs
	using (drive_id = mediafs.session_drive() and (drive_id <> 1048575 or drive_id = mediafs.session_writable_drive())) with check (true);
create policy own_delete on mediafs.locks for delete to mediafs
	using (drive_id = mediafs.session_drive() and (drive_id <> 1048575 or drive_id = mediafs.session_writable_drive()));
grant select, insert, delete on mediafs.locks to mediafs;
grant update (seq, low, high, pid, flock, exclusive) on mediafs.locks to mediafs;

-- Since when the mount has been heard of without a gap.
alter table mediafs.mounts add column since timestamptz not null default now();
grant update (since) on mediafs.mounts to mediafs;

-- The time before which a mount must not have been heard of last to have a gap now: what it held may be another's, or lost.
create function mediafs.unbroken() returns timestamptz
language sql stable as $$
	select greatest(pg_catalog.now() - interval '30 s', pg_catalog.pg_postmaster_start_time())
$$;

create or replace function mediafs.beat(p_drive integer, p_mount uuid, p_host text, p_open bigint[]) returns void
language plpgsql as $$
begin
	update mediafs.mounts m set since = case when m.seen_at < mediafs.unbroken() then now() else m.since end, seen_at = now()
		where m.drive_id = p_drive and m.mount_id = p_mount;
	if not found then
		insert into mediafs.mounts (drive_id, mount_id, host) values (p_drive, p_mount, p_host) on conflict do nothing;
	end if;
	update mediafs.removed r set mount_id = p_mount, removed_at = now()
		where r.drive_id = p_drive and r.ino <> 0 and r.ino = any (p_open);
	delete from mediafs.mounts m where m.drive_id = p_drive and m.seen_at < now() - interval '1 day';
end $$;

-- Is beat for a mount that holds locks on the nodes p_locked and no others, as of its claim p_seq. False, and nothing is done, if it was
-- not heard of for too long: it has to claim them all again first, and then say so with p_again.
create function mediafs.hold(p_drive integer, p_mount uuid, p_host text, p_open bigint[], p_locked bigint[], p_seq bigint, p_again boolean)
returns boolean
language plpgsql as $$
begin
	if not p_again and cardinality(p_locked) > 0 and not exists (select from mediafs.mounts m
			where m.drive_id = p_drive and m.mount_id = p_mount and m.seen_at >= mediafs.unbroken()) then
		return false;
	end if;
	delete from mediafs.locks l where l.drive_id = p_drive and l.mount_id = p_mount and l.seq <= p_seq and l.ino <> all (p_locked);
	perform mediafs.beat(p_drive, p_mount, p_host, p_open);
	return true;
end $$;

-- A lock of another mount that is in the way of one of some: no row if there is none.
create function mediafs.lock_conflict(p_drive integer, p_ino bigint, p_mount uuid,
	p_low bigint[], p_high bigint[], p_flock boolean[], p_exclusive boolean[], p_again boolean)
returns table (o_low bigint, o_high bigint, o_flock boolean, o_exclusive boolean)
language plpgsql stable as $$
declare
	v_dead timestamptz; -- a mount that was heard of last before that is dead
begin
	v_dead := coalesce((select case when m.seen_at >= mediafs.unbroken() and m.since <= now() - interval '30 s'
			then now() - interval '30 s' end
		from mediafs.mounts m where m.drive_id = p_drive and m.mount_id = p_mount), '-infinity');
	return query select h.low, h.high, h.flock, h.exclusive
		from mediafs.locks l
		cross join lateral unnest(l.low, l.high, l.flock, l.exclusive) h (low, high, flock, exclusive)
		join unnest(p_low, p_high, p_flock, p_exclusive) w (low, high, flock, exclusive)
			on w.flock = h.flock and w.low <= h.high and h.low <= w.high and (w.exclusive or h.exclusive)
		where l.drive_id = p_drive and l.ino = p_ino and l.mount_id <> p_mount
			and exists (select from mediafs.mounts m where m.drive_id = p_drive and m.mount_id = l.mount_id and m.seen_at >= v_dead)
		order by h.low limit 1;
	if found or p_again or pg_postmaster_start_time() < now() - interval '60 s' then
		return;
	end if;
	-- A mount that was there before the server started may hold what the server has lost.
	return query select 0::bigint, 9223372036854775807, p_flock[1], true
		where exists (select from mediafs.mounts m
			where m.drive_id = p_drive and m.mount_id <> p_mount and m.seen_at < pg_postmaster_start_time() and m.seen_at >= v_dead);
end $$;

-- Makes the locks that a mount holds on a node those given, unless one of another mount is in the way, which it returns. p_again: it
-- held them before.
create function mediafs.lock(p_drive integer, p_ino bigint, p_mount uuid, p_seq bigint,
	p_low bigint[], p_high bigint[], p_pid bigint[], p_flock boolean[], p_exclusive boolean[], p_again boolean)
returns table (o_low bigint, o_high bigint, o_flock boolean, o_exclusive boolean)
language plpgsql as $$
begin
	if cardinality(p_low) = 0 then
		delete from mediafs.locks l where l.drive_id = p_drive and l.ino = p_ino and l.mount_id = p_mount and l.seq < p_seq;
		return;
	end if;
	perform from mediafs.nodes n where n.drive_id = p_drive and n.ino = p_ino for no key update; -- one after the other
	if not found then
		raise exception 'mediafs: no such node' using errcode = 'MF404';
	end if;
	return query select c.* from mediafs.lock_conflict(p_drive, p_ino, p_mount, p_low, p_high, p_flock, p_exclusive, p_again) c;
	if found then
		return;
	end if;
	insert into mediafs.locks as l (drive_id, ino, mount_id, seq, low, high, pid, flock, exclusive)
		values (p_drive, p_ino, p_mount, p_seq, p_low, p_high, p_pid, p_flock, p_exclusive)
		on conflict (drive_id, ino, mount_id) do update set seq = excluded.seq, low = excluded.low, high = excluded.high,
			pid = excluded.pid, flock = excluded.flock, exclusive = excluded.exclusive
		where l.seq < excluded.seq;
end $$;
