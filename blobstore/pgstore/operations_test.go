package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// caller calls the functions of the database as a mount of alice's does.
type caller struct {
	*pgx.Conn
	t *testing.T
}

func (h household) caller(t *testing.T) caller {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.mountLogin(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "select set_config('mediafs.token', $1, false)", h.alice.Token.Reveal()); err != nil {
		t.Fatal(err)
	}
	return caller{conn, t}
}

// do runs statements in which %d is alice's drive.
func (c caller) do(h household, sql string) error {
	_, err := c.Exec(c.t.Context(), strings.NewReplacer("%[1]d", fmt.Sprint(h.aliceDrive), "%d", fmt.Sprint(h.aliceDrive)).Replace(sql))
	return err
}

// node is what there is to a node, as text.
func (c caller) node(ino int) string {
	c.t.Helper()
	var all string
	err := c.QueryRow(c.t.Context(), `select format('%s %s %s %s %s %s %s %s %s %s %s', n.mode, n.nlink, n.uid, n.gid, n.size, n.allocated, n.atime_ns, n.mtime_ns, n.ctime_ns, n.blob - n.ino, n.parent)
			|| (select coalesce(string_agg(format(' %s %s', e.parent, e.position - e.ino), ''), '') from mediafs.entries e where e.ino = n.ino)
			|| (select coalesce(string_agg(format(' %s %s', c.idx, c.data), '' order by c.idx), '') from mediafs.chunks c where c.blob = n.blob)
			|| (select format(' %s %s', p.mtime_ns, p.ctime_ns) from mediafs.nodes p join mediafs.entries e on e.parent = p.ino where e.ino = n.ino)
		from mediafs.nodes n where n.ino = $1`, ino).Scan(&all)
	if err != nil {
		c.t.Fatalf("node %d: %v", ino, err)
	}
	return all
}

func (c caller) usage() (bytes, nodes int64) {
	c.t.Helper()
	if err := c.QueryRow(c.t.Context(), "select sum(bytes)::bigint, sum(nodes)::bigint from mediafs.usage").Scan(&bytes, &nodes); err != nil {
		c.t.Fatal(err)
	}
	return bytes, nodes
}

// A file that is made with its content is the one that is made and then written.
func TestAFileMadeWithItsContentIsAsMadeAndWritten(t *testing.T) {
	h := newHousehold(t)
	c := h.caller(t)
	must := func(sql string) {
		t.Helper()
		if err := c.do(h, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	must("select mediafs.make(%[1]d, 1, 'plain', 5001, 16832, 7, 8, 0, null, 10), mediafs.make(%[1]d, 1, 'group', 5002, 16832 + 1024, 7, 9, 0, null, 10)")
	ino := 6000
	for folder, group := range map[string]string{"5001": "2", "5002": "9"} { // the second gives its own to what is made in it
		for _, content := range []struct{ idx, data, size string }{
			{"'{}'", "'{}'", "0"}, {"'{0}'", "'{abc}'", "3"}, {"'{0,3}'", "array[repeat('x', 65536)::bytea, 'end']", "196611"}, {"'{2}'", "'{b}'", "140000"},
		} {
			bytes, nodes := c.usage()
			ino += 10
			must(fmt.Sprintf("select mediafs.make(%%[1]d, %s, 'made%d', %[2]d, 33188, 1, 2, 0, null, 100)", folder, ino))
			must(fmt.Sprintf("select mediafs.put(%%[1]d, %[1]d, %[1]d, %[2]s, array_fill(-1, array[cardinality(%[2]s::integer[])]), %[3]s, %[4]s, 0, 200, 300)", ino, content.idx, content.data, content.size))
			want := c.node(ino)
			wantBytes, wantNodes := c.usage()
			must(fmt.Sprintf("select mediafs.make_file(%%[1]d, %s, 'one%d', %[2]d, 33188, 1, %s, %s, %s, %s, 100, 100, 200, 300)", folder, ino+1, group, content.idx, content.data, content.size))
			if got := c.node(ino + 1); got != want {
				t.Errorf("make_file: got %.200s\nwant %.200s", got, want)
			}
			gotBytes, gotNodes := c.usage()
			if gotBytes-wantBytes != wantBytes-bytes || gotNodes-wantNodes != wantNodes-nodes {
				t.Errorf("make_file: usage grew by %d bytes and %d nodes, want %d and %d", gotBytes-wantBytes, gotNodes-wantNodes, wantBytes-bytes, wantNodes-nodes)
			}
			must(fmt.Sprintf(`select mediafs.make_files(%%[1]d, '{%[1]s,%[1]s,1}', '{all%[2]d,all%[3]d,all%[4]d}', '{%[2]d,%[3]d,%[4]d}', '{33188,33188,33188}', '{1,1,1}', '{%[8]s,%[8]s,2}',
				'{%[5]s,%[5]s,0}', '{100,100,100}', '{100,100,100}', '{200,200,200}', '{300,300,300}',
				array_fill(%[2]d::bigint, array[cardinality(%[6]s::integer[])]) || array_fill(%[3]d::bigint, array[cardinality(%[6]s::integer[])]), %[6]s::integer[] || %[6]s::integer[], %[7]s::bytea[] || %[7]s::bytea[])`,
				folder, ino+2, ino+3, ino+4, content.size, content.idx, content.data, group))
			for _, all := range []int{ino + 2, ino + 3} {
				if got := c.node(all); got != want {
					t.Errorf("make_files: got %.200s\nwant %.200s", got, want)
				}
			}
		}
	}
	for _, refused := range []struct{ parent, name, code string }{{"1", "secret", "23505"}, {"9999", "new", "MF404"}, {"16", "new", "MF020"}} {
		before := h.fingerprint(t)
		for _, sql := range []string{
			"select mediafs.make_file(%%d, %s, '%s', 7001, 33188, 0, 0, '{0}', '{abc}', 3, 1, 1, 1, 1)",
			"select mediafs.make_files(%%d, '{1,%s}', '{fine,%s}', '{7001,7002}', '{33188,33188}', '{0,0}', '{0,0}', '{3,0}', '{1,1}', '{1,1}', '{1,1}', '{1,1}', '{7001}', '{0}', '{abc}')",
		} {
			if err := c.do(h, fmt.Sprintf(sql, refused.parent, refused.name)); code(err) != refused.code {
				t.Errorf(sql+": got %v, want %s", refused.parent, refused.name, err, refused.code)
			}
		}
		if h.fingerprint(t) != before {
			t.Errorf("what was refused with %s has changed something", refused.code)
		}
	}
}

// What had to wait for somebody else to be done with a folder goes by what is in it then, not by what was when it began.
func TestWhatWaitedForAFolderSeesWhatCameMeanwhile(t *testing.T) {
	h := newHousehold(t)
	watcher, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close(t.Context())
	const mount = "'00000000-0000-0000-0000-000000000001'"
	for i, test := range []struct{ there, first, then, left string }{
		{ // a name comes where another is moved to
			"select mediafs.make(%[1]d, 1, 'a', 5000, 33188, 0, 0, 0, null, 1)",
			"select mediafs.make(%[1]d, 1, 'b', 5001, 33188, 0, 0, 0, null, 1)",
			"select mediafs.rename(%[1]d, 1, 'a', 1, 'b', 0, 5002, 2, " + mount + ", '{}')", "b=5000",
		},
		{ // and is the name of the same file
			"select mediafs.make(%[1]d, 1, 'a', 5000, 33188, 0, 0, 0, null, 1)",
			"select mediafs.link(%[1]d, 5000, 1, 'b', 5001, 10, 1)",
			"select mediafs.rename(%[1]d, 1, 'a', 1, 'b', 0, 5002, 2, " + mount + ", '{}')", "a=5000 b=5000",
		},
		{ // what is moved comes
			"select mediafs.make(%[1]d, 1, 'c', 5000, 33188, 0, 0, 0, null, 1)",
			"select mediafs.rename(%[1]d, 1, 'c', 1, 'a', 0, 5001, 1, " + mount + ", '{}')",
			"select mediafs.rename(%[1]d, 1, 'a', 1, 'b', 0, 5002, 2, " + mount + ", '{}')", "b=5000",
		},
		{ // what is removed is replaced, and is there all the time
			"select mediafs.make(%[1]d, 1, 'a', 5000, 33188, 0, 0, 0, null, 1), mediafs.make(%[1]d, 1, 'c', 5001, 33188, 0, 0, 0, null, 1)",
			"select mediafs.rename(%[1]d, 1, 'c', 1, 'a', 0, 5002, 1, " + mount + ", '{}')",
			"select mediafs.unlink(%[1]d, 1, 'a', 2, " + mount + ", '{}')", "",
		},
		{ // the same of folders
			"select mediafs.make(%[1]d, 1, 'a', 5000, 16832, 0, 0, 0, null, 1), mediafs.make(%[1]d, 1, 'c', 5001, 16832, 0, 0, 0, null, 1)",
			"select mediafs.rename(%[1]d, 1, 'c', 1, 'a', 0, 5002, 1, " + mount + ", '{}')",
			"select mediafs.rmdir(%[1]d, 1, 'a', 2)", "",
		},
		{ // a folder gets something in it while it is removed
			"select mediafs.make(%[1]d, 1, 'a', 5000, 16832, 0, 0, 0, null, 1)",
			"select mediafs.make(%[1]d, 5000, 'in it', 5001, 33188, 0, 0, 0, null, 1)",
			"select mediafs.rmdir(%[1]d, 1, 'a', 2)", "a=5000 in it=5001",
		},
	} {
		one, two := h.caller(t), h.caller(t)
		if err := errors.Join(one.do(h, test.there), one.do(h, "begin"), one.do(h, test.first)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		done := make(chan error, 1)
		go func() { done <- two.do(h, test.then) }()
		for until := time.Now().Add(time.Minute); ; {
			var n int
			if err := watcher.QueryRow(t.Context(), "select count(*) from pg_locks where not granted and pid = $1", two.PgConn().PID()).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				break
			}
			if time.Now().After(until) {
				t.Fatalf("%d: nothing waits", i)
			}
		}
		if err := one.do(h, "commit"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil && (code(err) != "MF039" || test.left == "") {
			t.Errorf("%d: %s: got %v", i, test.then, err)
		}
		var left string
		err := one.QueryRow(t.Context(), "select coalesce(string_agg(convert_from(name, 'UTF8') || '=' || ino, ' ' order by name), '') from mediafs.entries where ino >= 5000").Scan(&left)
		if err != nil || left != test.left {
			t.Errorf("%d: got %q, %v, want %q", i, left, err, test.left)
		}
		if err := h.exec(t, h.url, "", "delete from mediafs.entries where ino >= 5000; delete from mediafs.nodes where ino >= 5000; delete from mediafs.removed where ino >= 5000"); err != nil {
			t.Fatal(err)
		}
	}
}

// What the folder above counts and the drive holds is right after whatever happened to names.
func TestMovingAndRemovingKeepsTheCounts(t *testing.T) {
	h := newHousehold(t)
	if err := h.exec(t, h.url, "", "delete from mediafs.removed; delete from mediafs.mounts"); err != nil { // so that what is removed goes at once
		t.Fatal(err)
	}
	c := h.caller(t)
	const mount = "'00000000-0000-0000-0000-000000000001'"
	for _, sql := range []string{
		"select mediafs.make(%[1]d, 1, 'x', 5001, 16832, 0, 0, 0, null, 1)", "select mediafs.make(%[1]d, 1, 'y', 5002, 16832, 0, 0, 0, null, 1)",
		"select mediafs.make(%[1]d, 5001, 'sub', 5003, 16832, 0, 0, 0, null, 1)", "select mediafs.make(%[1]d, 5002, 'sub', 5004, 16832, 0, 0, 0, null, 1)",
		"select mediafs.rename(%[1]d, 5001, 'sub', 5002, 'moved', 0, 5005, 2, " + mount + ", '{}')",
		"select mediafs.rename(%[1]d, 5002, 'moved', 5002, 'sub', 0, 5006, 2, " + mount + ", '{}')",
		"select mediafs.rename(%[1]d, 5002, 'sub', 5001, 'back', 0, 5007, 2, " + mount + ", '{}')",
		"select mediafs.make_file(%[1]d, 5001, 'file', 5008, 33188, 0, 0, '{0}', '{abc}', 3, 1, 1, 1, 1)", "select mediafs.make_file(%[1]d, 5001, 'old', 5009, 33188, 0, 0, '{0}', '{abcd}', 4, 1, 1, 1, 1)",
		"select mediafs.set_xattr(%[1]d, 5009, 'user.a', 'b', 0, false, 1)",
		"select mediafs.rename(%[1]d, 5001, 'file', 5001, 'old', 0, 5010, 2, " + mount + ", '{}')",
		"select mediafs.rename(%[1]d, 5001, 'old', 5002, 'file', 0, 5011, 2, " + mount + ", '{}')",
		"select mediafs.link(%[1]d, 5008, 1, 'second', 5012, 10, 1)", "select mediafs.unlink(%[1]d, 5002, 'file', 2, " + mount + ", '{}')",
		"select mediafs.rename(%[1]d, 1, 'y', 5001, 'back', 0, 5013, 2, " + mount + ", '{}')",
		"select mediafs.rename(%[1]d, 1, 'x', 1, 'secret', 2, 5014, 2, " + mount + ", '{}')",
		"select mediafs.rmdir(%[1]d, 16, 'nothing', 2)", "select mediafs.rmdir(%[1]d, 5001, 'back', 2)", "select mediafs.unlink(%[1]d, 1, 'second', 2, " + mount + ", '{}')",
	} {
		if err := c.do(h, sql); err != nil && code(err) != "MF020" {
			t.Errorf("%s: got %v", sql, err)
		}
	}
	if err := h.exec(t, h.url, "", "update mediafs.drives set next_ino = 10000"); err != nil {
		t.Fatal(err)
	}
	isWhole(t, h.url)
	if n, err := h.count(t, h.url, "", "select count(*) from mediafs.nodes where ino >= 5000"); err != nil || n != 1 {
		t.Errorf("got %d nodes, %v, want one folder", n, err)
	}
}
