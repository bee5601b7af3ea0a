package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/pgstore"
	"mediafs/blobstore/pgstore/pgtest"
)

// checkStore checks a store and returns what was found.
func checkStore(t testing.TB, url string, repair bool) ([]blobstore.Finding, blobstore.CheckReport) {
	t.Helper()
	var findings []blobstore.Finding
	report, err := pgstore.Check(context.Background(), url, repair, func(f blobstore.Finding) { findings = append(findings, f) })
	if err != nil {
		t.Fatal(err)
	}
	return findings, report
}

// isWhole fails the test if anything is wrong with a store.
func isWhole(t testing.TB, url string) {
	t.Helper()
	findings, report := checkStore(t, url, false)
	for _, f := range findings {
		t.Errorf("the store is not whole: %+v", f)
	}
	if !report.Whole() {
		t.Errorf("the store is not whole: %v", report.Left)
	}
}

// checked is a user's drive with something of everything.
type checked struct {
	url     string
	session auth.Session
	drive   int32
	inos    map[string]blobstore.Ino
}

const someBytes = 150_000 // in three chunks

// fillDrive puts something of each kind into a drive, and returns the numbers of the nodes.
func fillDrive(t *testing.T, url string, session auth.Session) (int32, map[string]blobstore.Ino) {
	t.Helper()
	ctx := t.Context()
	store, err := pgstore.Open(ctx, url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d, err := store.Open(ctx, session)
	if err != nil {
		t.Fatal(err)
	}
	inos := make(map[string]blobstore.Ino)
	put := func(parent, name string, node blobstore.NewNode) {
		t.Helper()
		in := blobstore.RootIno
		if parent != "" {
			in = inos[parent]
		}
		attr, err := d.Make(ctx, in, name, node)
		if err != nil {
			t.Fatal(err)
		}
		inos[name] = attr.Ino
	}
	for _, f := range [][2]string{{"", "album"}, {"album", "inner"}, {"inner", "innermost"}, {"", "other"}} {
		put(f[0], f[1], blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	}
	put("album", "link", blobstore.NewNode{Mode: unix.S_IFLNK | 0o777, Target: "photo"})
	put("album", "pipe", blobstore.NewNode{Mode: unix.S_IFIFO | 0o600})
	for i, f := range [][2]string{{"album", "photo"}, {"album", "second"}, {"innermost", "deep"}, {"album", "empty"}, {"other", "sparse"}} {
		put(f[0], f[1], blobstore.NewNode{Mode: unix.S_IFREG | 0o600})
		file, err := d.Open(ctx, inos[f[1]], writable)
		if err != nil {
			t.Fatal(err)
		}
		switch f[1] {
		case "empty":
		case "sparse":
			write(t, file, []byte("at the end of a hole"), 1<<20)
		default:
			write(t, file, noise(someBytes, uint64(i)), 0)
		}
		if err := errors.Join(file.Flush(ctx), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Link(ctx, inos["photo"], inos["other"], "photo too"); err != nil {
		t.Fatal(err)
	}
	if err := d.SetXattr(ctx, inos["photo"], "user.note", []byte("mine"), blobstore.XattrSet); err != nil {
		t.Fatal(err)
	}
	d.Record(blobstore.Event{Time: time.Now(), Action: blobstore.ActionOpen, Ino: inos["photo"], Count: 1, Result: blobstore.ResultOK})
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return int32(d.ID()), inos
}

func newChecked(t *testing.T, url string, user auth.UserID) checked {
	t.Helper()
	c := checked{url: url, session: signIn(t, url, user)}
	c.drive, c.inos = fillDrive(t, url, c.session)
	return c
}

func (c checked) name() blobstore.DriveName { return blobstore.DriveName(c.session.User) }

// exec does statements as the superuser. In them {alice} is the drive and {name} a node of it.
func (c checked) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	replace := []string{"{alice}", fmt.Sprint(c.drive)}
	for name, ino := range c.inos {
		replace = append(replace, "{"+name+"}", fmt.Sprint(ino))
	}
	if _, err := conn.Exec(t.Context(), strings.NewReplacer(replace...).Replace(sql)); err != nil {
		t.Fatal(err)
	}
}

// tree reads a whole drive: what is at each path. Files are their content, links their target, others their type.
func (c checked) tree(t *testing.T) map[string]string {
	t.Helper()
	store, err := pgstore.Open(t.Context(), c.url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d, err := store.Open(t.Context(), c.session)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.Background())
	found := make(map[string]string)
	var walk func(ino blobstore.Ino, path string)
	walk = func(ino blobstore.Ino, path string) {
		if strings.Count(path, "/") > 20 {
			t.Fatalf("%s is in itself", path)
		}
		dir, err := d.OpenDir(t.Context(), ino)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer dir.Close()
		var entries []blobstore.Entry
		if err := dir.Read(t.Context(), 2, true, func(e *blobstore.Entry) bool { entries = append(entries, *e); return true }); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, e := range entries {
			at := strings.TrimPrefix(path+"/"+e.Name, "/")
			attr, err := d.Lookup(t.Context(), ino, e.Name)
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			switch {
			case attr.IsDir():
				found[at] = "folder"
				walk(attr.Ino, at)
			case attr.Type() == unix.S_IFLNK:
				target, err := d.Readlink(t.Context(), attr.Ino)
				if err != nil {
					t.Fatalf("%s: %v", at, err)
				}
				found[at] = "-> " + target
			case attr.IsRegular():
				f, err := d.Open(t.Context(), attr.Ino, blobstore.OpenRead)
				if err != nil {
					t.Fatalf("%s: %v", at, err)
				}
				found[at] = "content " + string(read(t, f, int(attr.Size), 0))
				f.Close()
			default:
				found[at] = fmt.Sprintf("type %o", attr.Type())
			}
		}
	}
	walk(blobstore.RootIno, "")
	return found
}

// A fault is a way to break alice's drive: what is found then, and what is where after the repair, if that is not where it was.
type fault struct {
	name  string
	sql   string
	kinds string            // sorted, with spaces
	after map[string]string // path now → path before, or "content …", "-> …", "folder". In paths * is a number
	gone  []string          // paths that are no more
}

var faults = []fault{
	{name: "a file's name is gone", sql: "delete from mediafs.entries where drive_id = {alice} and ino = {second}",
		kinds: "orphan", after: map[string]string{"lost+found": "folder", "lost+found/ino-{second}": "album/second"}, gone: []string{"album/second"}},
	{name: "a name of two is gone", sql: "delete from mediafs.entries where drive_id = {alice} and name = 'photo too'",
		kinds: "links", gone: []string{"other/photo too"}},
	{name: "a folder's name is gone", sql: "delete from mediafs.entries where drive_id = {alice} and ino = {inner}",
		kinds: "links orphan", after: map[string]string{"lost+found": "folder", "lost+found/ino-{inner}": "folder",
			"lost+found/ino-{inner}/innermost": "folder", "lost+found/ino-{inner}/innermost/deep": "album/inner/innermost/deep"},
		gone: []string{"album/inner", "album/inner/innermost", "album/inner/innermost/deep"}},
	{name: "a folder's node is gone", sql: "set session_replication_role = replica; delete from mediafs.nodes where drive_id = {alice} and ino = {inner}",
		kinds: "links no-folder no-node usage", after: map[string]string{}},
	{name: "a folder's node and name are gone", sql: `delete from mediafs.nodes where drive_id = {alice} and ino = {innermost};
			delete from mediafs.entries where drive_id = {alice} and ino = {innermost}`,
		kinds: "links no-folder usage", after: map[string]string{"lost+found": "folder", "lost+found/ino-{innermost}": "folder",
			"lost+found/ino-{innermost}/deep": "album/inner/innermost/deep"},
		gone: []string{"album/inner/innermost", "album/inner/innermost/deep"}},
	{name: "a file's node is gone", sql: "delete from mediafs.nodes where drive_id = {alice} and ino = {photo}",
		kinds: "no-node orphan-blob usage xattr",
		after: map[string]string{"lost+found": "folder", "lost+found/blob-{photo}": "album/photo", "lost+found/photo (no content)": "content ",
			"lost+found/photo too (no content)": "content "},
		gone: []string{"album/photo", "other/photo too"}},
	{name: "a link count is wrong", sql: "update mediafs.nodes set nlink = 7 where drive_id = {alice} and ino in ({photo}, {album}, 1)", kinds: "links"},
	{name: "a named file counts as removed", sql: "update mediafs.nodes set nlink = 0 where drive_id = {alice} and ino = {photo}", kinds: "links"},
	{name: "a file without names is not to be collected", sql: `delete from mediafs.entries where drive_id = {alice} and ino = {second};
			update mediafs.nodes set nlink = 0 where drive_id = {alice} and ino = {second}`,
		kinds: "orphan", after: map[string]string{"lost+found": "folder", "lost+found/ino-{second}": "album/second"}, gone: []string{"album/second"}},
	{name: "a named file is to be collected", sql: "insert into mediafs.removed (drive_id, blob, ino, mount_id) values ({alice}, {second}, {second}, gen_random_uuid())",
		kinds: "removed"},
	{name: "a file's blob is to be collected", sql: "insert into mediafs.removed (drive_id, blob, mount_id) values ({alice}, {second}, gen_random_uuid())",
		kinds: "removed-blob"},
	{name: "what is not there is to be collected", sql: `insert into mediafs.removed (drive_id, blob, ino, mount_id) values ({alice}, 5000, 4999, gen_random_uuid());
			insert into mediafs.chunks (drive_id, blob, idx, data) values ({alice}, 5000, 0, 'whose is it')`,
		kinds: "numbers removed-node", after: map[string]string{"lost+found": "folder", "lost+found/blob-5000": "content whose is it"}},
	{name: "a folder has two names", sql: `insert into mediafs.entries (drive_id, parent, name, position, ino) values ({alice}, {other}, 'again', 4000, {inner})`,
		kinds: "links second-name", after: map[string]string{"lost+found": "folder", "lost+found/again (no content)": "content "}},
	{name: "the root is in a folder", sql: `insert into mediafs.entries (drive_id, parent, name, position, ino) values ({alice}, {other}, 'root', 4000, 1)`,
		kinds: "links root", after: map[string]string{"lost+found": "folder", "lost+found/root (no content)": "content "}},
	{name: "the root is gone", sql: `delete from mediafs.nodes where drive_id = {alice} and ino = 1`, kinds: "no-folder no-root"},
	{name: "the root is a file", sql: `update mediafs.nodes set mode = 33152 where drive_id = {alice} and ino = 1`, kinds: "blob no-folder parent root"},
	{name: "folders are in a ring", sql: `update mediafs.entries set parent = {innermost} where drive_id = {alice} and ino = {inner};
			update mediafs.nodes set parent = {innermost} where drive_id = {alice} and ino = {inner};
			update mediafs.nodes set nlink = 3 where drive_id = {alice} and ino = {innermost};
			update mediafs.nodes set nlink = 2 where drive_id = {alice} and ino = {album}`,
		kinds: "ring", after: map[string]string{"lost+found": "folder", "lost+found/inner": "folder", "lost+found/inner/innermost": "folder",
			"lost+found/inner/innermost/deep": "album/inner/innermost/deep"},
		gone: []string{"album/inner", "album/inner/innermost", "album/inner/innermost/deep"}},
	{name: "a folder is in itself", sql: `update mediafs.entries set parent = {innermost} where drive_id = {alice} and ino = {innermost};
			update mediafs.nodes set parent = {innermost}, nlink = 3 where drive_id = {alice} and ino = {innermost};
			update mediafs.nodes set nlink = 2 where drive_id = {alice} and ino = {inner}`,
		kinds: "ring", after: map[string]string{"lost+found": "folder", "lost+found/innermost": "folder", "lost+found/innermost/deep": "album/inner/innermost/deep"},
		gone: []string{"album/inner/innermost", "album/inner/innermost/deep"}},
	{name: "a folder says it is elsewhere", sql: "update mediafs.nodes set parent = 1 where drive_id = {alice} and ino = {innermost}", kinds: "parent"},
	{name: "a file says it is in a folder", sql: "update mediafs.nodes set parent = 1 where drive_id = {alice} and ino = {photo}", kinds: "parent"},
	{name: "a file is in a file", sql: "update mediafs.entries set parent = {photo} where drive_id = {alice} and name = 'second'",
		kinds: "no-folder", after: map[string]string{"lost+found": "folder", "lost+found/second": "album/second"}, gone: []string{"album/second"}},
	{name: "names that no file can have", sql: `update mediafs.entries set name = '\x2e2e' where drive_id = {alice} and name = 'second';
			update mediafs.entries set name = '\x612f62' where drive_id = {alice} and name = 'empty'`,
		kinds: "name", after: map[string]string{"lost+found": "folder", "lost+found/ino-{second}": "album/second", "lost+found/ino-{empty}": "album/empty"},
		gone: []string{"album/second", "album/empty"}},
	{name: "a position that listings skip", sql: "update mediafs.entries set position = 2 where drive_id = {alice} and name = 'second'", kinds: "position"},
	{name: "numbers in use are given again", sql: "update mediafs.drives set next_ino = 17 where drive_id = {alice}", kinds: "numbers"},
	{name: "nodes of no type", sql: `update mediafs.nodes set mode = 420 where drive_id = {alice} and ino in ({photo}, {link}, {inner})`,
		kinds: "blob links no-folder parent size target type"},
	{name: "a link without a target", sql: `update mediafs.nodes set target = null where drive_id = {alice} and ino = {link}`,
		kinds: "size target", after: map[string]string{"album/link": "content "}},
	{name: "a file with a target", sql: `update mediafs.nodes set target = 'elsewhere' where drive_id = {alice} and ino = {second}`,
		kinds: "target", after: map[string]string{"lost+found": "folder", "lost+found/ino-*": "-> elsewhere"}},
	{name: "a link of a wrong size", sql: `update mediafs.nodes set size = 3 where drive_id = {alice} and ino = {link}`, kinds: "size"},
	{name: "a file of a size below zero", sql: `update mediafs.nodes set size = -1 where drive_id = {alice} and ino = {second}`, kinds: "past-end size"},
	{name: "a pipe with a blob", sql: `update mediafs.nodes set blob = 4000 where drive_id = {alice} and ino = {pipe};
			insert into mediafs.chunks (drive_id, blob, idx, data) values ({alice}, 4000, 0, 'in a pipe')`,
		kinds: "allocated blob usage", after: map[string]string{"lost+found": "folder", "lost+found/blob-4000": "content in a pipe"}},
	{name: "a file without a blob", sql: `update mediafs.nodes set blob = 0, size = 0, allocated = 0 where drive_id = {alice} and ino = {second}`,
		kinds: "blob orphan-blob usage", after: map[string]string{"album/second": "content ", "lost+found": "folder", "lost+found/blob-{second}": "album/second"}},
	{name: "two files of one blob", sql: `delete from mediafs.chunks where drive_id = {alice} and blob = {second};
			update mediafs.nodes set blob = {photo} where drive_id = {alice} and ino = {second}`,
		kinds: "shared-blob usage", after: map[string]string{"album/second": "album/photo"}},
	{name: "less is said to be stored than is", sql: `update mediafs.nodes set allocated = 5 where drive_id = {alice} and ino = {second}`, kinds: "allocated"},
	{name: "chunks past the end", sql: `update mediafs.nodes set size = 100000 where drive_id = {alice} and ino = {second}`,
		kinds: "past-end", after: map[string]string{"album/second": "cut album/second", "lost+found": "folder", "lost+found/blob-*": "rest album/second"}},
	{name: "a chunk without bytes", sql: `insert into mediafs.chunks (drive_id, blob, idx, data) values ({alice}, {sparse}, 3, '')`, kinds: "chunk"},
	{name: "a chunk before the beginning", sql: `insert into mediafs.chunks (drive_id, blob, idx, data) values ({alice}, {sparse}, -3, 'before')`,
		kinds: "allocated chunk usage", after: map[string]string{"lost+found": "folder", "lost+found/blob-*": "content before"}},
	{name: "a chunk that is too long", sql: `update mediafs.chunks set data = data || 'and more' where drive_id = {alice} and blob = {second} and idx = 1`,
		kinds: "allocated chunk usage", after: map[string]string{"lost+found": "folder", "lost+found/blob-*": "chunk album/second"}},
	{name: "chunks of no blob", sql: `insert into mediafs.chunks (drive_id, blob, idx, data) values ({alice}, 4000, 0, 'four thousand'), ({alice}, 0, 0, 'none')`,
		kinds: "orphan-blob", after: map[string]string{"lost+found": "folder", "lost+found/blob-4000": "content four thousand", "lost+found/blob-*": "content none"}},
	{name: "an attribute of nothing", sql: `insert into mediafs.xattrs (drive_id, ino, name, value) values ({alice}, 4000, 'user.whose', 'is it')`,
		kinds: "xattr", after: map[string]string{"lost+found": "folder", "lost+found/ino-4000": "content "}},
	{name: "opens of nothing", sql: `set session_replication_role = replica; insert into mediafs.accesses (drive_id, ino, count, at_ns) values ({alice}, 4000, 1, 1)`,
		kinds: "access"},
	{name: "facts of nothing", sql: `insert into mediafs.facts (drive_id, ino, created_ns, mime_type, sha256) values ({alice}, 4000, 1, 'image/jpeg', sha256('gone'))`,
		kinds: "facts"},
	{name: "the usage is wrong", sql: `update mediafs.usage set bytes = bytes - 1000, nodes = nodes + 3 where drive_id = {alice} and slot = 3`, kinds: "usage"},
	{name: "a row of the usage is gone", sql: `delete from mediafs.usage where drive_id = {alice} and slot = 3`, kinds: "usage"},
	{name: "an account has another's drive", sql: `update mediafs.accounts set drive_id = {alice} where user_id = 'bob'`, kinds: "account"},
	{name: "lost+found is a file already", sql: `update mediafs.entries set name = 'lost+found', parent = 1 where drive_id = {alice} and name = 'empty';
			delete from mediafs.entries where drive_id = {alice} and ino = {second}`,
		kinds: "orphan", after: map[string]string{"lost+found": "album/empty", "lost+found-*": "folder", "lost+found-*/ino-{second}": "album/second"},
		gone: []string{"album/second", "album/empty"}},
	{name: "names that lost+found has already", sql: `
			insert into mediafs.entries (drive_id, parent, name, position, ino) values ({alice}, {album}, 'x', 3998, 3999), ({alice}, {other}, 'x', 3998, 3999)`,
		kinds: "no-node", after: map[string]string{"lost+found": "folder", "lost+found/x (no content)": "content ", "lost+found/x (no content) (*)": "content "}},
}

func TestCheckFindsEachFaultWhereItIsAndRepairLosesNothing(t *testing.T) {
	url := newStore(t)
	bob := newChecked(t, url, "bob")
	bobs := bob.tree(t)
	broken := make([]checked, len(faults)) // a drive for each fault
	before := make([]map[string]string, len(faults))
	for i := range faults {
		broken[i] = newChecked(t, url, auth.UserID(fmt.Sprintf("alice-%d", i)))
		before[i] = broken[i].tree(t)
	}
	isWhole(t, url)
	for i, fault := range faults {
		broken[i].exec(t, fault.sql)
	}

	found, report := checkStore(t, url, false)
	if report.Drives != int64(len(faults)+2) || report.Nodes < 11*report.Drives-20 || report.Bytes < 3*someBytes*int64(len(faults)) {
		t.Errorf("looked at %d drives, %d nodes and %d bytes", report.Drives, report.Nodes, report.Bytes)
	}
	repaired, report := checkStore(t, url, true)
	if len(repaired) != len(found) || !report.Repaired || !report.Whole() {
		t.Errorf("got %+v, want %d findings, all repaired", report, len(found))
	}
	for i, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			kinds := make(map[string]bool)
			for _, f := range found {
				if f.Drive == broken[i].name() {
					kinds[f.Kind] = true
				}
				if f.Repaired || f.Says == "" {
					t.Errorf("found %+v", f)
				}
			}
			if got := strings.Join(slices.Sorted(maps.Keys(kinds)), " "); got != fault.kinds {
				t.Errorf("found %q, want %q", got, fault.kinds)
			}
			broken[i].isAfter(t, before[i], fault)
		})
	}
	for _, f := range slices.Concat(found, repaired) {
		if f.Drive == "bob" || f.Drive == "public" || f.Drive == "" {
			t.Errorf("found %+v, where nothing was broken", f)
		}
	}
	for _, f := range repaired {
		if !f.Repaired {
			t.Errorf("not repaired: %+v", f)
		}
	}
	if got := bob.tree(t); !maps.Equal(got, bobs) {
		t.Errorf("bob's drive is another than before: %q", slices.Sorted(maps.Keys(got)))
	}
	isWhole(t, url)
}

// isAfter fails the test unless all that was in a drive is where the fault says that it is after the repair, and nothing else.
func (c checked) isAfter(t *testing.T, before map[string]string, fault fault) {
	t.Helper()
	want := maps.Clone(before)
	for _, path := range fault.gone {
		delete(want, path)
	}
	got := c.tree(t)
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(fault.after))) { // what is certain before what has a number to be found
		content := c.numbers(fault.after[path])
		path = c.numbers(path)
		kind, of, _ := strings.Cut(content, " ")
		data := strings.TrimPrefix(before[of], "content ")
		switch {
		case before[content] != "":
			content = before[content]
		case kind == "cut":
			content = "content " + data[:100_000]
		case kind == "rest": // with the whole of the chunk that was cut
			content = "content " + strings.Repeat("\x00", 65536) + data[65536:]
		case kind == "chunk":
			content = "content " + data[65536:131072] + "and more"
		}
		if found, ok := findPath(got, want, path); ok {
			path = found
		}
		want[path] = content
	}
	for path, content := range want {
		if got[path] != content {
			t.Errorf("%s: got %.40q, want %.40q", path, got[path], content)
		}
		delete(got, path)
	}
	for path, content := range got {
		t.Errorf("%s is there, %.40q", path, content)
	}
}

func TestCheckFindsWhatIsWrongWithTheStoreAsAWhole(t *testing.T) {
	url := newStore(t)
	alice, bob := newChecked(t, url, "alice"), newChecked(t, url, "bob")
	bobs := bob.tree(t)
	for _, test := range []struct{ kind, sql string }{
		{"unprotected", "alter table mediafs.chunks no force row level security; alter table mediafs.accounts disable row level security"},
		{"policy", "create policy all_of_it on mediafs.nodes for select to mediafs using (true)"},
		{"table-owner", "alter table mediafs.xattrs owner to postgres"},
		{"index", "drop index mediafs.entries_position"},
		{"foreign", "set session_replication_role = replica; delete from mediafs.drives where drive_id = {alice}; delete from mediafs.accounts where user_id = 'alice'"},
		{"no-public-drive", `delete from mediafs.usage where drive_id = 1048575; delete from mediafs.nodes where drive_id = 1048575;
			delete from mediafs.drives where drive_id = 1048575`},
	} {
		alice.exec(t, test.sql)
		found, _ := checkStore(t, url, false)
		if !slices.ContainsFunc(found, func(f blobstore.Finding) bool { return f.Kind == test.kind && f.Drive == "" && f.Says != "" }) {
			t.Errorf("%s: found %+v", test.kind, found)
		}
	}
	findings, report := checkStore(t, url, true)
	if got := strings.Join(slices.Sorted(maps.Keys(report.Left)), " "); got != "foreign index no-public-drive policy table-owner" {
		t.Errorf("after the repair %q is left", got)
	}
	for _, f := range findings {
		if f.Repaired != (f.Kind == "unprotected") || f.Drive != "" {
			t.Errorf("got %+v", f)
		}
	}
	if got := bob.tree(t); !maps.Equal(got, bobs) {
		t.Errorf("bob's drive is another than before: %q", slices.Sorted(maps.Keys(got)))
	}
}

// numbers puts the numbers of nodes into a path.
func (c checked) numbers(s string) string {
	for name, ino := range c.inos {
		s = strings.ReplaceAll(s, "{"+name+"}", fmt.Sprint(ino))
	}
	return s
}

// findPath finds the path that a pattern with a number to be filled in means, and that nothing else means.
func findPath(got, taken map[string]string, pattern string) (string, bool) {
	before, after, ok := strings.Cut(pattern, "*")
	if !ok {
		return "", false
	}
	for path := range got {
		if _, other := taken[path]; other || !strings.HasPrefix(path, before) || !strings.HasSuffix(path, after) {
			continue
		}
		if middle := path[len(before) : len(path)-len(after)]; strings.Trim(middle, "0123456789") == "" && middle != "4000" {
			return path, true
		}
	}
	return "", false
}

func TestWhatIsCutFromALargeFileLeavesTheUsageOnce(t *testing.T) {
	url := newStore(t)
	d := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	file, ino := create(t, d, "video")
	write(t, file, noise(3<<20, 1), 0)
	if err := file.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetAttr(t.Context(), ino, blobstore.AttrChange{Set: blobstore.SetSize}); err != nil {
		t.Fatal(err)
	}
	isWhole(t, url) // what was cut is still to be collected
	if err := d.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	isWhole(t, url)
}

func TestCheckOfAStoreThatIsBeingUsed(t *testing.T) {
	url := newStore(t)
	one := attach(t, url, signIn(t, url, "alice"), pgstore.Options{})
	two := attach(t, url, one.Session(), pgstore.Options{})
	_, still := create(t, one, "still")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var users errgroup.Group
	for n, d := range []*pgstore.Drive{one, two} {
		users.Go(func() error {
			for i := 0; ctx.Err() == nil; i++ {
				if err := busy(t.Context(), d, fmt.Sprintf("%d-%d", n, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 5 {
		isWhole(t, url)
	}
	// What nobody uses is broken, and repaired beside those who go on.
	broken := checked{url: url, drive: int32(one.ID()), inos: map[string]blobstore.Ino{"still": still}}
	for range 3 {
		broken.exec(t, `update mediafs.nodes set nlink = 7 where drive_id = {alice} and ino = {still};
			delete from mediafs.entries where drive_id = {alice} and ino = {still}`)
		if _, report := checkStore(t, url, true); !report.Repaired || report.Found["orphan"] != 1 || !report.Whole() {
			t.Errorf("got %+v", report)
		}
	}
	stop()
	if err := users.Wait(); err != nil {
		t.Error(err)
	}
	isWhole(t, url)
}

// busy makes, writes, links, moves, cuts and removes.
func busy(ctx context.Context, d *pgstore.Drive, name string) error {
	folder, err := d.Make(ctx, blobstore.RootIno, name, blobstore.NewNode{Mode: unix.S_IFDIR | 0o700})
	if err != nil {
		return err
	}
	file, attr, _, err := d.Create(ctx, folder.Ino, "file", blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, writable)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteAt(ctx, noise(1<<20+1<<18, 7), 100_000); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return file.Flush(ctx) },
		func() error { return d.SetXattr(ctx, attr.Ino, "user.note", []byte("busy"), blobstore.XattrSet) },
		func() error { return file.Allocate(ctx, blobstore.AllocatePunchHole, 200_000, 300_000) },
		func() error { _, err := d.Link(ctx, attr.Ino, folder.Ino, "link"); return err },
		func() error {
			return d.Rename(ctx, blobstore.Rename{Parent: folder.Ino, Name: "link", NewParent: blobstore.RootIno, NewName: name + "-moved"})
		},
		func() error {
			_, err := d.SetAttr(ctx, attr.Ino, blobstore.AttrChange{Set: blobstore.SetSize, Size: 70_000})
			return err
		},
		func() error {
			_, err := d.SetAttr(ctx, attr.Ino, blobstore.AttrChange{Set: blobstore.SetSize})
			return err
		},
		func() error { return d.Unlink(ctx, folder.Ino, "file") },
		func() error { return d.Rmdir(ctx, blobstore.RootIno, name) },
		func() error { return d.Unlink(ctx, blobstore.RootIno, name+"-moved") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestALoginThatDoesNotSeeAllRowsChecksNothing(t *testing.T) {
	url := newStore(t)
	newChecked(t, url, "alice").exec(t, `delete from mediafs.entries where drive_id = {alice}`)
	for role, grant := range map[string]string{"check_nobody": "", "check_mount": "grant mediafs to check_mount", "check_owner": "grant mediafs_owner to check_owner"} {
		login := pgtest.Login(t, url, role)
		if err := (household{}).exec(t, url, "", grant); err != nil {
			t.Fatal(err)
		}
		_, err := pgstore.Check(t.Context(), login, true, func(f blobstore.Finding) { t.Errorf("%s: found %+v", role, f) })
		if !errors.Is(err, pgstore.ErrPrivilege) {
			t.Errorf("%s: got %v, want %v", role, err, pgstore.ErrPrivilege)
		}
	}
	login := pgtest.Login(t, url, "check_all")
	if err := (household{}).exec(t, url, "", "alter role check_all bypassrls; grant mediafs_owner to check_all"); err != nil {
		t.Fatal(err)
	}
	if _, report := checkStore(t, login, true); report.Found["orphan"] == 0 || !report.Whole() {
		t.Errorf("a login that sees all: got %+v", report)
	}
}

func TestAReadOnlyDatabaseIsCheckedAndNotRepaired(t *testing.T) {
	url := newStore(t)
	c := newChecked(t, url, "alice")
	c.exec(t, "update mediafs.nodes set nlink = 7 where drive_id = {alice} and ino = {photo}")
	c.exec(t, "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$")
	if _, report := checkStore(t, url, false); report.Found["links"] != 1 {
		t.Errorf("got %+v", report)
	}
	if _, err := pgstore.Check(t.Context(), url, true, func(blobstore.Finding) {}); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v", err)
	}
}

func TestARepairDoesNotWaitForeverForALock(t *testing.T) {
	pgstore.RepairWaits(t, 100*time.Millisecond)
	url := newStore(t)
	c := newChecked(t, url, "alice")
	c.exec(t, "update mediafs.nodes set nlink = 7 where drive_id = {alice} and ino = {photo}")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "begin; lock table mediafs.nodes in row share mode"); err != nil {
		t.Fatal(err)
	}
	_, err = pgstore.Check(t.Context(), url, true, func(blobstore.Finding) {})
	if err == nil || !strings.Contains(err.Error(), "holds a lock") {
		t.Errorf("got %v", err)
	}
	if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if _, report := checkStore(t, url, true); !report.Whole() {
		t.Errorf("got %+v", report)
	}
}

func TestCheckFindsAMountingRoleThatMayDoMore(t *testing.T) {
	url := pgtest.NewCluster(t).URL("postgres") // roles are of a whole cluster
	if _, err := pgstore.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	isWhole(t, url)
	for _, sql := range []string{"alter role mediafs bypassrls", "alter role mediafs nobypassrls; grant mediafs_owner to mediafs"} {
		if err := (household{}).exec(t, url, "", sql); err != nil {
			t.Fatal(err)
		}
		if found, report := checkStore(t, url, true); len(found) != 1 || found[0].Kind != "mounting-role" || report.Whole() {
			t.Errorf("%s: found %+v", sql, found)
		}
	}
}
