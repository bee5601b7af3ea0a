-- Nothing that was given up arrives late.
--
-- When a connection breaks, or an operation's time is over, what was sent may still be on the way: in the network, in a pooler, in a server that
-- was stopped for a while. Done after what the mount does next, an old write would lie over a newer one, and an old removal take away a new
-- file. So every change says which epoch of its mount it is of, and a mount that does not know what became of a change begins a new
-- epoch before it changes anything else.

alter table mediafs.attachments add column epoch bigint not null default 0;

-- Lets a change of an epoch begin, and keeps the next epoch from beginning until the change is done. p_lock is the mount's own number for that.
-- It runs in every change, so it names every schema instead of setting a path, and looks at one row by its key.
create function mediafs.enter(p_drive integer, p_mount uuid, p_lock bigint, p_epoch bigint) returns void
language plpgsql security definer as $$
begin
	perform pg_catalog.pg_advisory_xact_lock_shared(p_lock);
	if exists (select from mediafs.attachments a where a.drive_id operator(pg_catalog.=) p_drive
			and a.mount_id operator(pg_catalog.=) p_mount and a.epoch operator(pg_catalog.>) p_epoch) then
		raise exception 'mediafs: this was given up' using errcode = 'MF110';
	end if;
end $$;

-- Begins an epoch: what entered before is done when this returns, and nothing of an earlier epoch enters after it. The key is the one of
-- mediafs.attach.
create function mediafs.begin_epoch(p_drive integer, p_mount uuid, p_key bytea, p_lock bigint, p_epoch bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	perform pg_advisory_xact_lock(p_lock);
	update mediafs.attachments a set epoch = p_epoch
		where a.drive_id = p_drive and a.mount_id = p_mount and a.key_hash = sha256(p_key) and a.epoch < p_epoch;
end $$;

revoke all on function mediafs.enter(integer, uuid, bigint, bigint), mediafs.begin_epoch(integer, uuid, bytea, bigint, bigint) from public;
grant execute on function mediafs.enter(integer, uuid, bigint, bigint), mediafs.begin_epoch(integer, uuid, bytea, bigint, bigint) to mediafs;
