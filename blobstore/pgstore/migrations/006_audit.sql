-- Who did what: the log, and how often files are opened.
--
-- Nobody but the functions here writes to these tables, and they only add: the mounting role may read its own drive's rows, as everywhere,
-- and has neither INSERT nor UPDATE, DELETE or TRUNCATE. Who did it is what the database found out itself, when the drive was attached
-- and the session was good; what was done and when is what the mount says.

-- A drive attached by a session: who may add to the drive's log, as whom. A row outlasts its session, so that what is denied after
-- that has ended can still be said, and goes when a later one is made and it has said nothing for 30 days.
--
-- The right to add is a key that the mount alone knows. It is not the mount's number, which others who use the drive see in
-- mediafs.mounts: whoever knew it could say that somebody else did something.
create table mediafs.attachments (
	mount_id    uuid not null,
	drive_id    integer not null,
	key_hash    bytea not null check (octet_length(key_hash) = 32), -- SHA-256; the key itself is nowhere
	user_id     text not null, -- '' of a guest
	role        text not null,
	host        text not null,
	attached_at timestamptz not null default now(),
	seen_at     timestamptz not null default now(),
	primary key (drive_id, mount_id)
);

-- The log. A row is known by the mount's own count, seq: no number tells anything of another drive.
create table mediafs.audit (
	at_ns    bigint not null, -- by the clock of the mounting machine
	mount_id uuid not null,
	seq      bigint not null,
	ino      bigint not null, -- 0: not known
	bytes    bigint not null,
	uid      bigint not null, -- who asked, on the mounting machine
	drive_id integer not null,
	count    integer not null check (count > 0), -- events alike that this one stands for
	user_id  text not null,
	host     text not null,
	action   text not null, -- see blobstore.Action
	result   text not null, -- 'ok', or the name of an errno
	path     bytea not null,
	new_path bytea not null,
	primary key (drive_id, at_ns, mount_id, seq)
);
-- Administrators read all drives in the order of time.
create unique index audit_time on mediafs.audit (at_ns, drive_id, mount_id, seq);

-- How often a file was opened, and when last. Not columns of nodes: those rows are wide, an open would write a new version of one,
-- and recording would wait for whoever writes to the file. The reference lets a row go with its node, whichever way that goes, and no row be
-- made for a node that is gone.
create table mediafs.accesses (
	ino      bigint not null,
	count    bigint not null,
	at_ns    bigint not null,
	drive_id integer not null,
	primary key (drive_id, ino),
	foreign key (drive_id, ino) references mediafs.nodes on delete cascade
) with (fillfactor = 70); -- room to count in place

do $$
declare
	v_table text;
begin
	foreach v_table in array array['attachments', 'audit', 'accesses'] loop
		execute format('alter table mediafs.%I enable row level security', v_table);
		execute format('alter table mediafs.%I force row level security', v_table);
		execute format('create policy own_select on mediafs.%I for select to mediafs using (drive_id = mediafs.session_drive())', v_table);
		execute format('create policy owner_select on mediafs.%I for select to mediafs_owner using (true)', v_table);
		execute format('create policy owner_insert on mediafs.%I for insert to mediafs_owner with check (true)', v_table);
		execute format('grant select on mediafs.%I to mediafs', v_table);
	end loop;
end $$;
create policy owner_seen on mediafs.attachments for update to mediafs_owner using (true);
create policy owner_old on mediafs.attachments for delete to mediafs_owner using (seen_at < now() - interval '30 days');
create policy owner_count on mediafs.accesses for update to mediafs_owner using (true);

-- Gives a mount of the session's drive the right to add to its log. Doing it again changes nothing.
create function mediafs.attach(p_drive integer, p_mount uuid, p_key bytea, p_host text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if mediafs.session_drive() is distinct from p_drive then
		raise exception 'mediafs: the token is not known' using errcode = 'MF001';
	end if;
	delete from mediafs.attachments a where a.drive_id = p_drive and a.seen_at < now() - interval '30 days';
	insert into mediafs.attachments (drive_id, mount_id, key_hash, user_id, role, host)
		select p_drive, p_mount, sha256(p_key), coalesce(w.user_id, ''), coalesce(w.role, 'guest'), p_host
		from (values (current_setting('mediafs.token', true))) t (token) left join mediafs.whoami(t.token) w on true
		on conflict do nothing;
end $$;

-- Adds a batch of events to the log, numbered from p_first on, and counts the opened files. It asks for no session. What is there
-- already, because the answer was lost, is passed over and not counted again.
create function mediafs.record(p_drive integer, p_mount uuid, p_key bytea, p_first bigint, p_at_ns bigint[], p_action text[],
	p_ino bigint[], p_path bytea[], p_new_path bytea[], p_bytes bigint[], p_count integer[], p_uid bigint[], p_result text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_by mediafs.attachments;
	v_ino bigint[];
	v_count bigint[];
	v_at_ns bigint[];
begin
	select a.* into v_by from mediafs.attachments a
		where a.drive_id = p_drive and a.mount_id = p_mount and a.key_hash = sha256(p_key);
	if not found then
		raise exception 'mediafs: the mount is not attached' using errcode = 'MF404';
	end if;
	if v_by.seen_at < now() - interval '1 hour' then
		update mediafs.attachments a set seen_at = now() where a.drive_id = p_drive and a.mount_id = p_mount;
	end if;
	with added as (
		insert into mediafs.audit as l
			(drive_id, at_ns, mount_id, seq, user_id, host, action, ino, path, new_path, bytes, count, uid, result)
			select p_drive, e.at_ns, p_mount, p_first + e.n - 1, v_by.user_id, v_by.host, e.action, e.ino, e.path, e.new_path,
				e.bytes, e.count, e.uid, e.result
			from unnest(p_at_ns, p_action, p_ino, p_path, p_new_path, p_bytes, p_count, p_uid, p_result)
				with ordinality e (at_ns, action, ino, path, new_path, bytes, count, uid, result, n)
			on conflict do nothing
		returning l.ino, l.count, l.at_ns, l.action, l.result),
	opened as (
		select a.ino, sum(a.count)::bigint count, max(a.at_ns) at_ns from added a
		where a.action = 'open' and a.result = 'ok' and a.ino > 0 group by a.ino)
	select array_agg(o.ino order by o.ino), array_agg(o.count order by o.ino), array_agg(o.at_ns order by o.ino)
		into v_ino, v_count, v_at_ns from opened o;
	if v_ino is null then
		return;
	end if;
	begin
		perform mediafs.count_opens(p_drive, v_ino, v_count, v_at_ns);
	exception when foreign_key_violation then -- some are gone by now: one by one, without those
		for v_i in 1 .. array_length(v_ino, 1) loop
			begin
				perform mediafs.count_opens(p_drive, v_ino[v_i:v_i], v_count[v_i:v_i], v_at_ns[v_i:v_i]);
			exception when foreign_key_violation then
				null;
			end;
		end loop;
	end;
end $$;

create function mediafs.count_opens(p_drive integer, p_ino bigint[], p_count bigint[], p_at_ns bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
	insert into mediafs.accesses as a (drive_id, ino, count, at_ns)
		select p_drive, o.ino, o.count, o.at_ns from unnest(p_ino, p_count, p_at_ns) o (ino, count, at_ns)
		on conflict (drive_id, ino) do update set count = a.count + excluded.count, at_ns = greatest(a.at_ns, excluded.at_ns);
end $$;

-- Whether a row is wanted: see blobstore.AuditQuery.
create function mediafs.audit_fits(l mediafs.audit, p_user text, p_path bytea, p_below bytea, p_denied boolean) returns boolean
language sql immutable as $$
	select (p_user is null or l.user_id = p_user)
		and (p_path is null or l.path = p_path or l.new_path = p_path
			or l.path <> '' and substring(l.path for octet_length(p_below)) = p_below
			or l.new_path <> '' and substring(l.new_path for octet_length(p_below)) = p_below)
		and (not p_denied or l.result <> 'ok' and l.action <> 'session')
$$;

-- A page of the log after a row of it, in the order of time: of one drive, or of all if p_drive is null. p_user and p_path of null
-- are any; p_below is how the paths begin that are in p_path.
create function mediafs.audit_page(p_drive integer, p_user text, p_path bytea, p_below bytea, p_denied boolean,
	p_at_ns bigint, p_after_drive integer, p_mount uuid, p_seq bigint, p_limit integer) returns setof mediafs.audit
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
	if p_drive is not null then
		return query select l.* from mediafs.audit l
			where l.drive_id = p_drive and (l.at_ns, l.mount_id, l.seq) > (p_at_ns, p_mount, p_seq)
				and mediafs.audit_fits(l, p_user, p_path, p_below, p_denied)
			order by l.at_ns, l.mount_id, l.seq limit p_limit;
	else
		return query select l.* from mediafs.audit l
			where (l.at_ns, l.drive_id, l.mount_id, l.seq) > (p_at_ns, p_after_drive, p_mount, p_seq)
				and mediafs.audit_fits(l, p_user, p_path, p_below, p_denied)
			order by l.at_ns, l.drive_id, l.mount_id, l.seq limit p_limit;
	end if;
end $$;

-- The same for a token: of a user their own drive's log, of an admin that of all.
create function mediafs.audit_log(p_token text, p_user text, p_path bytea, p_below bytea, p_denied boolean,
	p_at_ns bigint, p_after_drive integer, p_mount uuid, p_seq bigint, p_limit integer)
returns table (o_row mediafs.audit, o_drive text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_who record;
	v_drive integer;
begin
	select * into v_who from mediafs.whoami(p_token);
	if not found then
		raise exception 'mediafs: the token is not known' using errcode = 'MF001';
	elsif v_who.banned then
		raise exception 'mediafs: the user is banned' using errcode = 'MF003';
	elsif v_who.expires_at <= now() then
		raise exception 'mediafs: the session has expired' using errcode = 'MF002';
	end if;
	if v_who.role is distinct from 'admin' then
		select d.drive_id into v_drive from mediafs.drives d where d.owner = v_who.user_id;
		if not found then
			return; -- no drive, no log
		end if;
	end if;
	return query select l, coalesce(d.owner, 'public')
		from mediafs.audit_page(v_drive, p_user, p_path, p_below, p_denied, p_at_ns, p_after_drive, p_mount, p_seq, p_limit) l
		join mediafs.drives d using (drive_id)
		order by l.at_ns, l.drive_id, l.mount_id, l.seq;
end $$;

revoke all on function mediafs.attach(integer, uuid, bytea, text) from public;
revoke all on function mediafs.record(integer, uuid, bytea, bigint, bigint[], text[], bigint[], bytea[], bytea[], bigint[], integer[], bigint[], text[]) from public;
revoke all on function mediafs.count_opens(integer, bigint[], bigint[], bigint[]) from public;
revoke all on function mediafs.audit_fits(mediafs.audit, text, bytea, bytea, boolean) from public;
revoke all on function mediafs.audit_page(integer, text, bytea, bytea, boolean, bigint, integer, uuid, bigint, integer) from public;
revoke all on function mediafs.audit_log(text, text, bytea, bytea, boolean, bigint, integer, uuid, bigint, integer) from public;
grant execute on function mediafs.attach(integer, uuid, bytea, text),
	mediafs.record(integer, uuid, bytea, bigint, bigint[], text[], bigint[], bytea[], bytea[], bigint[], integer[], bigint[], text[]),
	mediafs.audit_log(text, text, bytea, bytea, boolean, bigint, integer, uuid, bigint, integer) to mediafs;
