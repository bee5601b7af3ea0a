package pgstore_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore/pgstore"
)

// A planner that knows nothing of the tables yet, and one that has seen many small folders, both have to find a name by its key and
// list a folder in order, however large it is. So they are asked as a mount asks them, under the policies: those keep conditions away from an
// index whose functions are not leakproof.
func TestPlansReadNoMoreThanTheyReturn(t *testing.T) {
	url := newStore(t)
	alice := signIn(t, url, "alice")
	d := attach(t, url, alice, pgstore.Options{})
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	indexed := regexp.MustCompile(`Index Cond: .*drive_id = .*parent.* = .*(name = |position" > )`)
	const own = "insert into mediafs.entries (drive_id, parent, name, position, ino) "
	exec(own+"select $1, 1000 + i / 3, ('small' || i)::bytea, 100000 + i, i from generate_series(1, 30000) i", int32(d.ID()))
	exec(own+"select $1, 1, ('large' || i)::bytea, 200000 + i, i from generate_series(1, 30000) i", int32(d.ID()))
	for _, known := range []string{"reset all", "analyze mediafs.entries"} {
		exec("reset role")
		exec(known)
		exec("set role mediafs")
		exec("set mediafs.token = '" + alice.Token.Reveal() + "'")
		for _, test := range []struct{ sql, index string }{
			{"select e.ino from mediafs.entries e where e.drive_id = $1 and e.parent = $2 and e.name = 'large77'", "entries_pkey"},
			{"select e.name from mediafs.entries e where e.drive_id = $1 and e.parent::double precision = $2::bigint::double precision and e.position > 5 order by e.position limit 100", "entries_position"},
			{"delete from mediafs.entries e where e.drive_id = $1 and e.parent = $2 and e.name = 'large77'", "entries_pkey"},
		} {
			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				exec("set plan_cache_mode = " + mode)
				exec("deallocate all")
				exec("prepare p (integer, bigint) as " + test.sql)
				rows, err := conn.Query(t.Context(), fmt.Sprintf("explain execute p (%d, 1)", d.ID()), pgx.QueryExecModeSimpleProtocol)
				if err != nil {
					t.Fatal(err)
				}
				lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if err != nil {
					t.Fatal(err)
				}
				plan := strings.Join(lines, "\n")
				if !strings.Contains(plan, "using "+test.index+" ") || strings.Contains(plan, "Sort") || !indexed.MatchString(plan) {
					t.Errorf("after %q, %s, %s: got the plan\n%s\nwant one of %s alone, with all conditions", known, mode, test.sql, plan, test.index)
				}
			}
		}
	}
}
