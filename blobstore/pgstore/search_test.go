package pgstore_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
)

// A library is a store with assets in the drives of alice and bob and in the public one, which an admin, ada, may search.
type library struct {
	t               *testing.T
	url             string
	store           *pgstore.Store
	alice, bob, ada auth.Session
	superuser       *pgx.Conn
}

// newLibrary makes n assets in each drive of alice and bob, three at a time, and a few more. Of every thing that can be asked for there are some with and some
// without it.
func newLibrary(t *testing.T, n int) library {
	t.Helper()
	l := library{t: t, url: newStore(t)}
	l.alice, l.bob, l.ada = signIn(t, l.url, "alice"), signIn(t, l.url, "bob"), signInAs(t, l.url, "ada", auth.RoleAdmin)
	var err error
	if l.superuser, err = pgx.Connect(t.Context(), l.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.superuser.Close(context.Background()) })
	if l.store, err = pgstore.Open(t.Context(), l.url, pgstore.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.store.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, session := range []auth.Session{l.alice, l.bob} {
		drive, err := l.store.Open(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		if err := drive.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.exec(`create temp table file as
		select d.drive_id, 1000 + i as ino, case when i % 4 = 0 then 1 else 900 + i % 3 end as parent, i, 1700000000000000000 + i / 3 as ns
		from mediafs.drives d, generate_series(1, $1) i where d.owner is not null or i < 30`, n)
	l.exec(`insert into mediafs.nodes (drive_id, ino, parent, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns, described)
		select d.drive_id, 900 + i, 1, 16384 + 448, 2, 0, 0, 1, 1, 1, true from mediafs.drives d, generate_series(0, 2) i`)
	l.exec(`insert into mediafs.entries (drive_id, parent, position, ino, name)
		select d.drive_id, 1, 900 + i, 900 + i, convert_to('folder' || i, 'UTF8') from mediafs.drives d, generate_series(0, 2) i`)
	l.exec(`insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, size, atime_ns, mtime_ns, ctime_ns, created_ns, job, described)
		select drive_id, ino, ino, 32768 + 384, case when i % 9 = 0 then 2 else 1 end, 0, 0, i, ns, ns, ns, ns, case when i % 5 = 0 then 'job' end, i % 6 <> 0 from file`)
	l.exec(`insert into mediafs.entries (drive_id, parent, position, ino, name)
		select drive_id, parent, ino, ino, convert_to(case when i <= 3 then 'needle' else 'IMG_' end || i || '.jpg', 'UTF8') from file`)
	l.exec(`insert into mediafs.entries (drive_id, parent, position, ino, name)
		select drive_id, 902, 100000 + ino, ino, convert_to('also' || i, 'UTF8') from file where i % 9 = 0`)
	l.exec(`insert into mediafs.facts (drive_id, ino, created_ns, mime_type, sha256)
		select drive_id, ino, ns, (array['image/jpeg', 'image/png', 'video/mp4', ''])[1 + i % 4], sha256('') from file where i % 6 <> 0 or i % 7 = 0`)
	return l
}

// exec runs a statement as a superuser, all on one connection, so that temporary tables stay.
func (l *library) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.superuser.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatal(err)
	}
}

// all are all pages of what is found.
func (l *library) all(session auth.Session, query blobstore.AssetQuery) (assets []blobstore.Asset) {
	l.t.Helper()
	for {
		page, err := l.store.FindAssets(l.t.Context(), session, query)
		if err != nil {
			l.t.Fatal(err)
		}
		if query.Limit > 0 && len(page.Assets) > query.Limit {
			l.t.Fatalf("%+v: got a page of %d", query, len(page.Assets))
		}
		assets = append(assets, page.Assets...)
		if page.Next == "" {
			return assets
		}
		query.After = page.Next
	}
}

func TestAnAdminsSearchOfAllDrivesIsThatOfEach(t *testing.T) {
	l := newLibrary(t, 200)
	at := func(ns int64) time.Time { return time.Unix(0, 1700000000000000000+ns) }
	for _, query := range []blobstore.AssetQuery{
		{}, {Types: []string{"image/jpeg"}}, {Types: []string{"image/*", "video/mp4"}}, {Types: []string{"audio/*"}}, {Job: "job"}, {Job: "job", Types: []string{"image/*"}},
		{Job: "another"}, {Name: "*7*"}, {Name: "also*"}, {Name: "*.jpg"}, {Since: at(20), Until: at(40)}, {MinSize: 20, MaxSize: 30, Types: []string{"image/*"}},
		{Folder: "folder1"}, {Folder: "folder2", Name: "also*"}, {Folder: "nowhere"},
	} {
		query.Order = blobstore.ByCreation
		for _, limit := range []int{1000, 101, 7} {
			query.Limit, query.Drives = limit, nil
			got := l.all(l.ada, query)
			var want []blobstore.Asset
			for _, drive := range []blobstore.DriveName{"alice", "bob", "public"} {
				query.Drives = []blobstore.DriveName{drive}
				want = append(want, l.all(l.ada, query)...)
			}
			slices.SortFunc(want, func(a, b blobstore.Asset) int {
				return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Drive, b.Drive), cmp.Compare(b.Ino, a.Ino))
			})
			if !slices.EqualFunc(got, want, func(a, b blobstore.Asset) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("%+v: got %d assets, want %d, or others", query, len(got), len(want))
			}
			if some := query.Job != "another" && query.Folder != "nowhere" && !slices.Contains(query.Types, "audio/*"); some != (len(got) > 0) {
				t.Errorf("%+v: got %d", query, len(got))
			}
		}
	}
}

// There are so many files that a name which few have is looked for among all names.
func TestRareNamesAreFound(t *testing.T) {
	l := newLibrary(t, 12_000)
	for _, order := range []blobstore.AssetOrder{blobstore.ByCreation, blobstore.ByPath} {
		for _, test := range []struct {
			name            string
			types           []string
			ofOne, ofAdmins int
		}{
			{"needle*", nil, 3, 9}, {"NEEDLE[12].*", nil, 2, 6}, {"nothing*", nil, 0, 0}, {"*11999*", nil, 1, 2}, {"needle*", []string{"image/*"}, 1, 3},
		} {
			for _, limit := range []int{1000, 2} {
				query := blobstore.AssetQuery{Name: test.name, Types: test.types, Order: order, Limit: limit}
				for _, session := range []auth.Session{l.alice, l.ada} {
					want := test.ofOne
					if session.Role == auth.RoleAdmin {
						want = test.ofAdmins
					}
					got := l.all(session, query)
					for _, a := range got {
						if ok, err := path.Match(strings.ToLower(test.name), strings.ToLower(path.Base(a.Path))); !ok || err != nil {
							t.Errorf("%+v: got %q", query, a.Path)
						}
					}
					if len(got) != want {
						t.Errorf("%s: %+v: got %d, want %d", session.User, query, len(got), want)
					}
				}
			}
		}
	}
}

// The database lets no name pass wrongly by: it is the same that path.Match finds among all.
func TestPatternsFindWhatPathMatchDoes(t *testing.T) {
	l := newLibrary(t, 0)
	names := []string{"a", "A", "ab", "AB.jpg", "é", "É.JPG", "e\u0301", "K.txt", "\u212a", "i", "İ", "ı", "ſ", "s", "\xff", "a\xffb", "\xe9t\xe9", "日本", "😀.png", "a\nb", `a\b`, "[x]", "x.y", "{2}", "(a|b)", "^$",
		"-", "a-b", "]", "\u0080", "~", "0", "\xc3", "aé\xa9", "�"}
	for i, name := range names {
		l.exec(`insert into mediafs.nodes (drive_id, ino, blob, mode, nlink, uid, gid, atime_ns, mtime_ns, ctime_ns)
			select drive_id, $1, $1, 32768 + 384, 1, 0, 0, 1, 1, 1 from mediafs.drives where owner = 'alice'`, 5000+i)
		l.exec(`insert into mediafs.entries (drive_id, parent, position, ino, name)
			select drive_id, 1, $1, $1, $2 from mediafs.drives where owner = 'alice'`, 5000+i, []byte(name))
	}
	found := 0
	for _, pattern := range []string{"*", "?", "??", "???", "a*", "*B", "[a-z]", "[^a-z]", "[^a]", "[é]*", "*é*", "É*", "k*", "\u212a*", "i", "İ", "s", "ſ", "\xff", "*\xff*", "?\xff?", "�", "[�]", "*[^\x01-\x7f]*", `a\\b`,
		`\[x]`, "[[]x[]]", "x.y", "{2}", "(a|b)", "^$", "*-*", `[\-]`, "[^-]", "日?", "[日本]*", "?.png", "a?b", "[a-]", "[!-~]", "[]", "*\n*", "[k]*", "[i]", "[s]", "[\\]]"} {
		if _, err := path.Match(pattern, ""); err != nil {
			continue
		}
		var want []string
		for _, name := range names {
			if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name)); ok && err == nil {
				want = append(want, name)
			}
		}
		for _, order := range []blobstore.AssetOrder{blobstore.ByCreation, blobstore.ByPath} {
			var got []string
			for _, a := range l.all(l.alice, blobstore.AssetQuery{Name: pattern, Order: order, Folder: ""}) {
				got = append(got, a.Path)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%q: got %q, want %q", pattern, got, want)
			}
			found += len(got)
		}
	}
	if found < 100 {
		t.Errorf("got only %d names", found)
	}
}

// Who is not an admin, or is none any more, or whose token is nobody's, finds nothing of others by what searches all drives, whatever they say in settings.
func TestOnlyAnAdminSearchesAllDrives(t *testing.T) {
	l := newLibrary(t, 50)
	h := household{url: l.url, alice: l.alice, bob: l.bob}
	const find = `select from mediafs.find_assets(current_setting('mediafs.token'), null, '{}', false, null, null, null, 0, 9e18::bigint, 0, 9e18::bigint, false, '', 9e18::bigint,
		9e18::bigint, '', '', 1000)`
	const all = "select from mediafs.all_assets(null, null, null, 0, 9e18::bigint, 0, 9e18::bigint, '', 9e18::bigint, 0, 1000)"
	banned := "a-banned-admins-token"
	l.exec(`create table "user" (id text primary key, role text, banned boolean, "banExpires" timestamptz)`)
	l.exec(`create table "session" (id text primary key, token text unique, "expiresAt" timestamptz, "userId" text)`)
	if _, err := pgstore.Init(t.Context(), l.url); err != nil {
		t.Fatal(err)
	}
	l.exec(`insert into "user" values ('eve', 'admin', false, null)`)
	l.exec(`insert into "session" values ('s', $1, now() + interval '1 hour', 'eve')`, banned)
	const everything = 50 + 50 + 29
	for _, admin := range []string{l.ada.Token.Reveal(), banned} {
		for _, sql := range []string{find, all} {
			if n, err := h.attacker(t, admin, "").rows(sql); n != everything || err != nil {
				t.Fatalf("an admin, %s: got %d, %v", sql, n, err)
			}
		}
	}
	l.exec(`update "user" set banned = true`)
	l.exec("update mediafs.accounts set role = 'user' where user_id = 'ada'")
	for _, test := range []struct {
		who, token string
		finds      int64
		findCode   string
		allCode    string
	}{
		{"a user", l.bob.Token.Reveal(), 50, "", "42501"},
		{"an admin who is a user now", l.ada.Token.Reveal(), 0, "", "42501"},
		{"an admin who is banned", banned, 0, "MF003", "MF003"},
		{"a guest", "guest", 29, "", "42501"},
		{"nobody", "", 0, "MF001", "42501"},
		{"a made-up token", "mfs_forged", 0, "MF001", "MF001"},
		{"another", "' or true --", 0, "MF001", "MF001"},
	} {
		for _, drive := range []string{"", "1", "2", "1048575"} {
			a := h.attacker(t, test.token, drive)
			for _, sql := range []string{"select set_config('mediafs.admin', 'true', false), set_config('role', 'mediafs', false)", "set search_path = pg_temp, public"} {
				if _, err := a.rows(sql); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := a.rows("create function pg_temp.session_is_admin() returns boolean language sql as 'select true'"); err != nil {
				t.Fatal(err)
			}
			if n, err := a.rows(find); n != test.finds || code(err) != test.findCode {
				t.Errorf("%s, drive %q, find_assets: got %d, %v", test.who, drive, n, err)
			}
			if n, err := a.rows(all); n != 0 || code(err) != test.allCode {
				t.Errorf("%s, drive %q, all_assets: got %d, %v", test.who, drive, n, err)
			}
			// A token that is set in the middle is asked for again by the policies.
			if n, err := a.rows("with t as materialized (select set_config('mediafs.token', '" + strings.ReplaceAll(test.token, "'", "''") + "', true)) select from t, lateral (" + all + ") a"); n != 0 || err == nil {
				t.Errorf("%s, drive %q, all_assets in one statement: got %d, %v", test.who, drive, n, err)
			}
		}
	}
	if page, err := l.store.FindFolders(t.Context(), l.ada, blobstore.FolderQuery{}); len(page.Folders) > 0 || err != nil {
		t.Errorf("with a session that says it is an admin's: got the folders %v, %v", page.Folders, err)
	}
	if page, err := l.store.FindAssets(t.Context(), l.ada, blobstore.AssetQuery{Order: blobstore.ByCreation}); len(page.Assets) > 0 || err != nil {
		t.Errorf("with a session that says it is an admin's: got %d, %v", len(page.Assets), err)
	}
	forged := l.bob
	forged.Role = auth.RoleAdmin
	page, err := l.store.FindAssets(t.Context(), forged, blobstore.AssetQuery{Order: blobstore.ByCreation})
	if err != nil || len(page.Assets) != 50 || slices.ContainsFunc(page.Assets, func(a blobstore.Asset) bool { return a.Drive != "bob" }) {
		t.Errorf("bob's session that says it is an admin's: got %d, %v", len(page.Assets), err)
	}
	folders, err := l.store.FindFolders(t.Context(), forged, blobstore.FolderQuery{})
	if err != nil || len(folders.Folders) != 3 || slices.ContainsFunc(folders.Folders, func(f blobstore.Folder) bool { return f.Drive != "bob" }) {
		t.Errorf("bob's session that says it is an admin's: got the folders %v, %v", folders.Folders, err)
	}
	forged.Token = auth.NewToken()
	if page, err := l.store.FindFolders(t.Context(), forged, blobstore.FolderQuery{}); len(page.Folders) > 0 || !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a made-up token: got the folders %v, %v", page.Folders, err)
	}
	if page, err := l.store.FindAssets(t.Context(), forged, blobstore.AssetQuery{Order: blobstore.ByCreation}); len(page.Assets) > 0 || !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a made-up token: got %d, %v", len(page.Assets), err)
	}
}
