package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// marker is in the names and in the contents of all that alice has, and nowhere else.
const marker = "of-alice-alone-7f3a9c"

// fillAlices mounts alice's drive and fills it.
func (s *store) fillAlices(t *testing.T) *mount {
	t.Helper()
	alice := s.mount(t, s.addUser(t, "alice"))
	s.person.shell(t, alice.point, `
		m=`+marker+`
		mkdir -p "$m/$m"
		echo "$m" | tee "secret-$m" "$m/file" "$m/$m/deep" >/dev/null
		for i in {1..2000}; do echo "$m"; done >"large-$m"
		ln -s "$m" "link-$m"
		setfattr -n "user.$m" -v "$m" "secret-$m"
		ln "secret-$m" same-number`).ok(t)
	return alice
}

func TestTwoUsersFindNoTraceOfEachOther(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		bobsToken := s.addUser(t, "bob")
		bob := s.mount(t, bobsToken)
		alice := s.fillAlices(t)
		// bob names things as hostile as names can be, and as alice's are named.
		s.person.shell(t, bob.point, `
			ln -s ../alice up; ln -s ../../alice/same-number up2; ln -s ../alice/../alice/secret* star
			mkdir '..\alice' '%2e%2e' '. .' alice; touch $'..\n' '...' '$(cat same-number)' same-number
			echo mine >same-number; rm same-number; echo mine >same-number`).ok(t)
		search := fmt.Sprintf("find . -printf '%%p %%l\\n'; grep -r %s . ; getfattr -Rd -m - .; cat same-number up/* up2 star 2>&1", marker)
		got := s.person.run(t, bob.point, "bash", "-c", search)
		if strings.Contains(got.stdout+got.stderr, marker) {
			t.Errorf("bob finds a trace of alice:\n%v", got)
		}
		if !strings.Contains(got.stdout, "same-number") {
			t.Errorf("bob does not find his own:\n%v", got)
		}
		// The search finds what there is to find.
		if got := s.person.run(t, alice.point, "bash", "-c", search); !strings.Contains(got.stdout, marker) {
			t.Errorf("alice does not find her own:\n%v", got)
		}
		// Nor does bob change anything: his names are his own.
		s.person.shell(t, bob.point, "find . -mindepth 1 -delete").ok(t)
		if got := s.person.run(t, alice.point, "cat", "same-number").ok(t); got != marker+"\n" {
			t.Errorf("alice reads %q after bob has removed all of his", got)
		}
		if s.kind == postgres {
			// What alice has does not count as bob's. A folder's drive shows the disk that it is on.
			bob.unmount(t)
			bob = s.mountAt(t, bobsToken, bob.point)
			used := s.person.run(t, bob.point, "df", "--output=iused", ".").ok(t)
			if fields := strings.Fields(used); len(fields) != 2 || fields[1] != "0" && fields[1] != "1" {
				t.Errorf("bob's empty drive shows the use of %q", used)
			}
		}
	})
}

// Whoever may write in a user's folder, past the drive, may put links there that lead to another's. The drive does not follow
// them, not even while they change places with folders.
func TestALinkInTheFolderLeadsNowhere(t *testing.T) {
	s := newStore(t, folder, person{})
	s.fillAlices(t)
	bob := s.mount(t, s.addUser(t, "bob"))
	root := filepath.Join(s.root, "bob")
	check(t, os.Mkdir(bob.path("place"), 0o755))
	writeFile(t, bob.path("place", "same-number"), "mine\n")
	check(t, os.Symlink("../alice", filepath.Join(root, "trap")))

	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		place, trap := filepath.Join(root, "place"), filepath.Join(root, "trap")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, place, unix.AT_FDCWD, trap, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	read := 0
	for i := range 3000 {
		name := bob.path("place", "same-number")
		// Through a folder that is open already, and by its name.
		if dir, err := os.OpenRoot(bob.path("place")); err == nil {
			content, err := dir.ReadFile("same-number")
			if strings.Contains(string(content), marker) {
				t.Fatal("bob reads alice's file")
			} else if err == nil {
				read++
			}
			check(t, dir.Close())
		}
		if i%3 == 0 {
			if err := os.WriteFile(name, []byte("mine\n"), 0o644); err == nil {
				read++
			}
		}
	}
	close(stop)
	swapper.Wait()
	if read == 0 {
		t.Error("not once was the folder in its place: the test shows nothing")
	}
	if got := readFile(t, filepath.Join(s.root, "alice", "same-number")); got != marker+"\n" {
		t.Errorf("alice's file now holds %q", got)
	}
}

// A program that holds the mounts' database login, and knows alice's ids, gets at nothing of hers without her token.
func TestTheDatabaseChecksTheOwner(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	s = s.withLogin(t, "application")
	// accounts are an administrator's business.
	admin := *s
	admin.address = s.database
	users := map[string]user{"alice": admin.addUser(t, "alice"), "bob": admin.addUser(t, "bob")}
	for _, u := range users {
		m := s.mount(t, u)
		s.person.shell(t, m.point, "mkdir d; echo "+u.name+"-"+marker+" >d/file; ln -s x d/l; setfattr -n user.x -v y d/file").ok(t)
		t.Cleanup(func() { m.unmount(t) })
	}
	super := s.connect(t)
	alice := number(t, super, "SELECT drive_id FROM mediafs.drives WHERE owner = 'alice'")
	waitUntil(t, "what the mount does by itself is done: alice's file is described", func() bool {
		return number(t, super, "SELECT count(*) FROM mediafs.nodes WHERE drive_id = $1 AND NOT described AND mode & 61440 = 32768", alice) == 0
	})
	tables := s.tables(t, super)
	before := s.contents(t, super, tables, alice)

	conn := connect(t, s.address)
	if who := number(t, conn, "SELECT count(*) FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)"); who != 0 {
		t.Fatal("the mounts' login goes past the policies")
	}
	for _, token := range []struct{ whose, text string }{
		{"no", ""}, {"a made-up", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, {"bob's", users["bob"].token(t)},
	} {
		for table, columns := range tables {
			attacks := []string{"SELECT count(*) FROM " + table + " WHERE drive_id = $1"}
			attacks = append(attacks,
				"WITH x AS (DELETE FROM "+table+" WHERE drive_id = $1 RETURNING 1) SELECT count(*) FROM x",
				"WITH x AS (INSERT INTO "+table+" SELECT * FROM "+table+" WHERE drive_id = $1 RETURNING 1) SELECT count(*) FROM x",
				"SELECT count(*) FROM "+table+" WHERE drive_id = $1 FOR UPDATE")
			for _, column := range columns {
				attacks = append(attacks,
					fmt.Sprintf("WITH x AS (UPDATE %s SET %s = %[2]s WHERE drive_id = $1 RETURNING 1) SELECT count(*) FROM x", table, column))
			}
			for _, attack := range attacks {
				if n, err := asToken(conn, token.text, attack, alice); err == nil && n != 0 {
					t.Errorf("with %s token %d rows of alice's: %s", token.whose, n, attack)
				}
			}
		}
		// What bob has of his own must not become alice's.
		for _, table := range []string{"mediafs.nodes", "mediafs.entries", "mediafs.chunks", "mediafs.xattrs"} {
			attack := "WITH x AS (UPDATE " + table + " SET drive_id = $1 RETURNING 1) SELECT count(*) FROM x"
			if n, err := asToken(conn, token.text, attack, alice); err == nil && n != 0 {
				t.Errorf("with %s token %d rows were made alice's: %s", token.whose, n, attack)
			}
		}
	}
	for _, query := range []string{
		"SELECT count(*) FROM mediafs.accounts",
		"SELECT count(*) FROM pg_stats WHERE schemaname = 'mediafs'", // samples of the rows
		"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%mfs\\_%'",
		"SELECT count(*) FROM pg_roles WHERE rolname IN ('mediafs_owner', 'mediafs_worker') AND pg_has_role(oid, 'member')",
	} {
		if n, err := asToken(conn, users["bob"].token(t), query); err == nil && n != 0 {
			t.Errorf("the mounts' login sees %d rows: %s", n, query)
		}
	}
	// With her own token it is all there: the attacks did look where something is.
	if n, err := asToken(conn, users["alice"].token(t), "SELECT count(*) FROM mediafs.nodes WHERE drive_id = $1", alice); err != nil || n < 4 {
		t.Errorf("with alice's token %d nodes, %v", n, err)
	}
	for table, want := range before {
		if got := s.contents(t, super, tables, alice)[table]; got != want {
			t.Errorf("alice's rows of %s have changed", table)
		}
	}
}

// tables are the tables of the store that hold rows of drives, with their columns.
func (s *store) tables(t *testing.T, conn *pgx.Conn) map[string][]string {
	t.Helper()
	const query = `SELECT 'mediafs.' || c.relname, a.attname::text, c.relrowsecurity AND c.relforcerowsecurity
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'mediafs'::regnamespace AND c.relkind IN ('r', 'p')
			AND EXISTS (SELECT FROM pg_attribute d WHERE d.attrelid = c.oid AND d.attname = 'drive_id')`
	rows, err := conn.Query(context.Background(), query)
	check(t, err)
	tables := map[string][]string{}
	var table, column string
	var forced bool
	_, err = pgx.ForEachRow(rows, []any{&table, &column, &forced}, func() error {
		tables[table] = append(tables[table], column)
		if !forced {
			t.Errorf("row-level security of %s is not forced", table)
		}
		return nil
	})
	check(t, err)
	for _, want := range []string{"drives", "nodes", "entries", "chunks", "xattrs"} {
		if tables["mediafs."+want] == nil {
			t.Fatalf("there is no table mediafs.%s", want)
		}
	}
	return tables
}

// contents are digests of a drive's rows, without those that a mount changes by itself.
func (s *store) contents(t *testing.T, conn *pgx.Conn, tables map[string][]string, drive int64) map[string]string {
	t.Helper()
	digests := map[string]string{}
	for table := range tables {
		switch table {
		case "mediafs.mounts", "mediafs.drives", "mediafs.attachments", "mediafs.audit", "mediafs.accesses":
			continue
		}
		var digest string
		query := "SELECT coalesce(md5(string_agg(r::text, ' ' ORDER BY r::text)), '') FROM " + table + " r WHERE drive_id = $1"
		check(t, conn.QueryRow(context.Background(), query, drive).Scan(&digest))
		digests[table] = digest
	}
	return digests
}

// asToken runs a query of one number in a transaction that a mount with the token would run it in, and commits.
func asToken(conn *pgx.Conn, token, query string, args ...any) (n int64, err error) {
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, "SELECT set_config('mediafs.token', $1, true)", token)
	if err == nil {
		err = tx.QueryRow(ctx, query, args...).Scan(&n)
	}
	if err != nil {
		return 0, errors.Join(err, tx.Rollback(ctx))
	}
	return n, tx.Commit(ctx)
}
