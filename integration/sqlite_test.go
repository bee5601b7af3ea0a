package integration

import (
	"fmt"
	"strings"
	"testing"
)

const (
	transactions = 100
	inserts      = 100 // in each transaction
)

func TestSQLiteWorksOnADrive(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"wal", "delete"} {
		t.Run("journal mode "+journal, func(t *testing.T) {
			asEveryone(t, func(t *testing.T, s *store) {
				alice := s.addUser(t, "alice")
				m := s.mount(t, alice)
				var script strings.Builder
				fmt.Fprintf(&script, "PRAGMA journal_mode=%s;\nCREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT UNIQUE);\n", journal)
				for i := range transactions {
					script.WriteString("BEGIN;\n")
					for j := range inserts {
						fmt.Fprintf(&script, "INSERT INTO photos (name) VALUES ('photo %d of %d');\n", j, i)
					}
					script.WriteString("COMMIT;\n")
				}
				if got := s.sqlite(t, m, script.String()); got != journal {
					t.Errorf("journal mode %q, want %q", got, journal)
				}
				// Another process meets the same database, through the lock files of the journal mode.
				const question = "PRAGMA integrity_check; SELECT count(*), count(DISTINCT name) FROM photos;"
				want := fmt.Sprintf("ok\n%d|%[1]d", transactions*inserts)
				if got := s.sqlite(t, m, question); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				s.sqlite(t, m, "BEGIN; DELETE FROM photos; ROLLBACK; DELETE FROM photos WHERE id % 2; VACUUM;")
				m.unmount(t)

				m = s.mountAt(t, alice, m.point)
				want = fmt.Sprintf("ok\n%d|%[1]d", transactions*inserts/2)
				if got := s.sqlite(t, m, question); got != want {
					t.Errorf("after mounting again got %q, want %q", got, want)
				}
			})
		})
	}
}

// sqlite runs a script on a database of the drive.
func (s *store) sqlite(t *testing.T, m *mount, script string) string {
	t.Helper()
	path := s.dir + "/script.sql"
	writeFile(t, path, script)
	return strings.TrimSpace(s.person.shell(t, m.point, "sqlite3 -bail library.db <"+path).ok(t))
}
