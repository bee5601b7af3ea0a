-- An admin's search of all drives is one query, and rare names are found in one pass over the names.

-- What the content of all drives says, the newest first. Files are described in the background, so no mount waits for these indexes.
create index facts_all_creation on mediafs.facts (created_ns, drive_id, ino);
create index facts_all_type on mediafs.facts (mime_type, created_ns, drive_id, ino);

-- Whether the session is an admin's that lasts; an error if it is nobody's.
create function mediafs.session_is_admin() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
	v_token text := coalesce(current_setting('mediafs.token', true), '');
begin
	return v_token not in ('', 'guest') and (select s.o_role = 'admin' from mediafs.signed_in(v_token) s);
end $$;
revoke all on function mediafs.session_is_admin() from public;
grant execute on function mediafs.session_is_admin() to mediafs;

-- What is searched with the owner's rights is shown to admins alone, whatever is asked: a policy of the owner asks for the session as those of the mounting
-- role do, once a statement. Without a session, as in a migration, it shows nothing.
create policy admin_select on mediafs.nodes for select to mediafs_owner using ((select mediafs.session_is_admin()));
create policy admin_select on mediafs.entries for select to mediafs_owner using ((select mediafs.session_is_admin()));
create policy admin_select on mediafs.facts for select to mediafs_owner using ((select mediafs.session_is_admin()));

-- Whether a name matches a regular expression. Names are bytes, so each byte is a character here, and the expression says what bytes a letter has
-- (pgstore.patternRegex): no name is refused, which would take a transaction of its own for each.
create or replace function mediafs.may_match(p_name bytea, p_regex text) returns boolean
language sql stable parallel safe as $$
	select pg_catalog.convert_from(p_name, 'LATIN1') collate "C" operator(pg_catalog.~) p_regex
$$;

grant create on schema mediafs to mediafs_worker;
set role mediafs_worker;

-- Asks for a page of the assets of one drive: see blobstore.AssetQuery. p_folder is a path, its names apart; all names that are wanted match
-- p_regex (see may_match). p_types are types, or what types begin with and an asterisk. A page by creation begins after (p_after_ns, p_after_ino),
-- one by path after the name p_after_name in the folder p_after_folder. What there are many of is never read as a whole:
--
--   by creation  the index of the job, of each type, or of creation gives the newest first, and reading ends when the page is full;
--   by path      if few are of the job, types and time, they are all looked up and sorted; if not, the folders are gone through in order.
--
-- Names that few have are found by reading all names of the drive, once, which takes a fraction of looking up what else is known of each file: by creation
-- once more than a few were in vain.
--
-- What is executed has all the same parameters. Rows are looked up in LATERAL subqueries with OFFSET 0, so that whatever the planner
-- knows of the tables, no table is read as a whole for a page.
create or replace function mediafs.drive_assets(p_drive integer, p_folder bytea[], p_shallow boolean, p_regex text, p_types text[], p_job text,
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
	c_names constant text := 'select array_agg(distinct m.ino), count(*) from (select e.ino from mediafs.entries e '
		'where e.drive_id = $1 and mediafs.may_match(e.name, $2) order by e.drive_id, e.parent, e.name limit $3) m';
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
	v_seen integer := 0;
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
			select e.parent, n.ino, e.name, ' || c_columns || ' from unnest($11) u (ino)
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
		|| case when p_by_path then ' and (p.path, h.name) > ($13, $14) order by p.path, h.name' else ' and (h.created_ns, h.ino) < ($9, $10) order by h.created_ns desc, h.ino desc' end || ' limit $17';

	if not p_by_path then
		v_batch := greatest(p_limit, 100);
		loop
			if p_regex is not null and v_seen between c_few and 4 * c_few then
				v_seen := 5 * c_few; -- no more than once
				execute c_names into v_inos, v_n using p_drive, p_regex, c_few + 1;
				if v_n <= c_few then
					return query execute v_lookup using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
						v_inos, v_paths, p_after_folder, p_after_name, p_limit, v_path, v_left;
					return;
				end if;
			end if;
			execute v_source into v_inos, v_last using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos, v_paths, p_after_folder, p_after_name, v_batch, v_path, v_left;
			exit when v_inos is null;
			return query execute v_lookup using p_drive, v_types, p_job, p_since, p_until, p_min, p_max, p_regex, p_after_ns, p_after_ino,
				v_inos, v_paths, p_after_folder, p_after_name, p_limit, v_path, v_left;
			get diagnostics v_n = row_count;
			v_left := v_left - v_n;
			exit when v_left = 0 or cardinality(v_inos) < v_batch;
			p_after_ns := v_last;
			p_after_ino := v_inos[cardinality(v_inos)];
			v_seen := v_seen + v_batch;
			v_batch := least(2 * v_batch, c_few);
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

	if p_regex is not null then
		execute c_names into v_inos, v_n using p_drive, p_regex, c_few + 1;
		if v_n <= c_few then
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

set role mediafs_owner;
revoke create on schema mediafs from mediafs_worker;

-- Asks for a page of the assets of all drives, the newest first, for an admin: see drive_assets. Of those made at once, it is in the order of the drives' names, which no
-- index has, so they are read together ("with ties"). The page begins after (p_after_ns, p_after_drive, p_after_ino). Of jobs and of what is not described, which are
-- mostly of few drives, there is no index of all: those of the drives are looked into.
create function mediafs.all_assets(p_regex text, p_types text[], p_job text, p_since bigint, p_until bigint, p_min bigint, p_max bigint,
	p_after_drive text, p_after_ns bigint, p_after_ino bigint, p_limit integer)
returns table (o_drive text, o_id uuid, o_ino bigint, o_folder bytea, o_name bytea, o_size bigint, o_job text, o_created bigint, o_mtime bigint,
	o_described boolean, o_type text, o_sha256 bytea, o_width integer, o_height integer, o_taken bigint, o_count bigint, o_at bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
	c_few constant integer := 5000;
	c_made constant text := 'n.created_ns >= $3 and n.created_ns < $4 and n.created_ns <= $8 order by n.created_ns desc fetch first $13 rows with ties';
	c_names constant text := 'select array_agg(m.drive_id), array_agg(m.ino), count(*) from (select e.drive_id, e.ino from mediafs.entries e '
		'where mediafs.may_match(e.name, $1) limit $2) m';
	v_fits text := 'n.mode & 61440 = 32768 and n.nlink > 0 and n.created_ns >= $3 and n.created_ns < $4 and n.size >= $5 and n.size <= $6 '
		'and n.created_ns <= $8 and (n.created_ns < $9 or d.name > $10 or d.name = $10 and n.ino < $11)';
	v_first_name text := 'true'; -- that o.name is wanted
	v_types text[];
	v_kind text;
	v_sources text[]; -- queries of drives, numbers and times of creation
	v_source text;    -- one of all of them, the newest first
	v_lookup text;    -- one of the rows for drives and numbers
	v_drives integer[];
	v_inos bigint[];
	v_newest bigint := p_after_ns;
	v_last bigint;
	v_left integer := p_limit;
	v_batch integer := greatest(p_limit, 100);
	v_seen integer := 0;
	v_n integer;
begin
	if not mediafs.session_is_admin() then
		raise exception 'mediafs: only an admin searches all drives' using errcode = '42501'; -- insufficient_privilege
	end if;
	if p_regex is not null then
		v_fits := v_fits || ' and mediafs.may_match(e.name, $7)';
		v_first_name := 'mediafs.may_match(o.name, $7)';
	end if;
	if p_job is not null then
		v_fits := v_fits || ' and n.job = $2';
		v_sources := array['select j.* from mediafs.drives d cross join lateral '
			'(select n.drive_id, n.ino, n.created_ns from mediafs.nodes n where n.drive_id = d.drive_id and n.job = $2 and ' || c_made || ') j'];
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
				(select f.mime_type from mediafs.facts f where f.mime_type >= v_kind collate "C" order by f.mime_type limit 1)
				union all
				select (select f.mime_type from mediafs.facts f where f.mime_type > t.type order by f.mime_type limit 1)
					from t where starts_with(t.type, v_kind))
				select array_agg(t.type::text) from t where starts_with(t.type, v_kind)), '{}');
		end loop;
		if cardinality(v_types) = 0 then
			return;
		end if;
		v_fits := v_fits || ' and f.mime_type = any ($1)';
		v_sources := coalesce(v_sources, array(
			select format('select n.drive_id, n.ino, n.created_ns from mediafs.facts n where n.mime_type = %L and ', t) || c_made
			from (select distinct unnest(v_types)) d (t)));
	end if;
	v_sources := coalesce(v_sources, array['select n.drive_id, n.ino, n.created_ns from mediafs.facts n where ' || c_made,
		'(with recursive d (drive_id) as (
			(select n.drive_id from mediafs.nodes n where not n.described order by n.drive_id, n.created_ns, n.ino limit 1)
			union all
			select (select n.drive_id from mediafs.nodes n where not n.described and n.drive_id > d.drive_id order by n.drive_id, n.created_ns, n.ino limit 1)
				from d where d.drive_id is not null)
		select u.* from d cross join lateral (select n.drive_id, n.ino, n.created_ns from mediafs.nodes n where n.drive_id = d.drive_id and not n.described
			and (select f.ino from mediafs.facts f where f.drive_id = n.drive_id and f.ino = n.ino) is null and ' || c_made || ') u)']);
	v_source := 'select array_agg(s.drive_id), array_agg(s.ino), min(s.created_ns) from (select * from (('
		|| array_to_string(v_sources, ') union all (') || ')) s order by s.created_ns desc fetch first $13 rows with ties) s';
	v_lookup := 'with h as materialized (
			select d.asset_key, d.name as drive, n.drive_id, n.ino, e.parent, e.name, n.nlink, n.size, n.job, n.created_ns, n.mtime_ns, n.described,
				f.mime_type, f.sha256, f.width, f.height, f.taken_ns
			from (select distinct * from unnest($14, $15) u (drive_id, ino)) u
			cross join lateral (select n.* from mediafs.nodes n where n.drive_id = u.drive_id and n.ino = u.ino offset 0) n
			cross join lateral (select d.asset_key, coalesce(d.owner, ''public'') collate "C" as name from mediafs.drives d where d.drive_id = u.drive_id offset 0) d
			cross join lateral (select e.parent, e.name from mediafs.entries e where e.drive_id = u.drive_id and e.ino = u.ino offset 0) e
			left join lateral (select f.* from mediafs.facts f where f.drive_id = u.drive_id and f.ino = u.ino offset 0) f on true
			where ' || v_fits || '),
		p as materialized (select p.drive_id, p.parent, mediafs.folder_of(p.drive_id, p.parent) as path from (select distinct h.drive_id, h.parent from h) p)
		select h.drive::text, mediafs.asset_id(h.asset_key, h.drive_id, h.ino), h.ino, p.path, h.name, h.size, h.job, h.created_ns, h.mtime_ns, h.described,
			h.mime_type::text, h.sha256, h.width, h.height, h.taken_ns, a.count, a.at_ns
		from h join p on p.drive_id = h.drive_id and p.parent = h.parent
		left join lateral (select a.count, a.at_ns from mediafs.accesses a where a.drive_id = h.drive_id and a.ino = h.ino offset 0) a on true
		where p.path is not null and (h.nlink = 1 or not exists (select from mediafs.entries o, lateral (select mediafs.folder_of(o.drive_id, o.parent) as path) q
			where o.drive_id = h.drive_id and o.ino = h.ino and (q.path, o.name) < (p.path, h.name) and ' || v_first_name || '))
		order by h.created_ns desc, h.drive, h.ino desc limit $12';
	loop
		if p_regex is not null and v_seen between c_few and 4 * c_few then
			v_seen := 5 * c_few; -- no more than once
			execute c_names into v_drives, v_inos, v_n using p_regex, c_few + 1;
			if v_n <= c_few then
				return query execute v_lookup using v_types, p_job, p_since, p_until, p_min, p_max, p_regex, v_newest, p_after_ns, p_after_drive, p_after_ino,
					v_left, v_batch, v_drives, v_inos;
				return;
			end if;
		end if;
		execute v_source into v_drives, v_inos, v_last using v_types, p_job, p_since, p_until, p_min, p_max, p_regex, v_newest, p_after_ns, p_after_drive, p_after_ino,
			v_left, v_batch;
		exit when v_inos is null;
		return query execute v_lookup using v_types, p_job, p_since, p_until, p_min, p_max, p_regex, v_newest, p_after_ns, p_after_drive, p_after_ino,
			v_left, v_batch, v_drives, v_inos;
		get diagnostics v_n = row_count;
		v_left := v_left - v_n;
		exit when v_left = 0 or cardinality(v_inos) < v_batch;
		v_newest := v_last - 1;
		v_seen := v_seen + v_batch;
		v_batch := least(2 * v_batch, c_few);
	end loop;
end $$;
revoke all on function mediafs.all_assets(text, text[], text, bigint, bigint, bigint, bigint, text, bigint, bigint, integer) from public;
grant execute on function mediafs.all_assets(text, text[], text, bigint, bigint, bigint, bigint, text, bigint, bigint, integer) to mediafs;

-- A page of the assets of all drives that a token may list: of an admin's search by creation, all_assets; else drive_assets for one after the other, each of which
-- asks for the token once more. Of a page by creation, each drive adds what is newer than the oldest of a page that is full.
create or replace function mediafs.find_assets(p_token text, p_names text[], p_folder bytea[], p_shallow boolean, p_regex text, p_types text[], p_job text,
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
	if p_names is null and p_folder = '{}' and not p_by_path and mediafs.session_is_admin() then
		return query select a.* from mediafs.all_assets(p_regex, p_types, p_job, p_since, p_until, p_min, p_max, p_after_drive, p_after_ns, p_after_ino, p_limit) a;
		return;
	end if;
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
