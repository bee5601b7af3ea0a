package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
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

// A writer to a database is killed again and again, and then the program that the drive is mounted by is. Each time every
// transaction that was said to be committed is there, and each that is there is whole.
func TestSQLiteLosesNothingThatWasCommittedWhenSomethingIsKilled(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"wal", "delete"} {
		t.Run("journal mode "+journal, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, s *store) {
				alice := s.addUser(t, "alice")
				m := s.mount(t, alice)
				s.sqlite(t, m, fmt.Sprintf("PRAGMA journal_mode=%s; CREATE TABLE written (n INTEGER, part INTEGER, content BLOB);", journal))
				random := rand.New(rand.NewPCG(4, uint64(len(journal))))
				committed := 0
				for range size(20, 200) {
					w := s.startWriter(t, m, committed+1)
					w.waitUntil(t, committed+1+random.IntN(20))
					check(t, w.cmd.Process.Kill())
					committed = s.checkWritten(t, m, w.end())
				}
				for range size(3, 30) {
					w := s.startWriter(t, m, committed+1)
					w.waitUntil(t, committed+1+random.IntN(20))
					m.kill(t)
					acknowledged := w.end()
					m.clear(t)
					m = s.mountAt(t, alice, m.point)
					committed = s.checkWritten(t, m, acknowledged)
				}
				t.Logf("%d transactions", committed)
			})
		})
	}
}

// parts is how many rows each transaction of a writer inserts.
const parts = 10

// A sqliteWriter is a process that commits one transaction after the other, and says so after each.
type sqliteWriter struct {
	cmd    *exec.Cmd
	stdout *bufio.Scanner
	fed    chan struct{} // closed when nothing is written to it any more
	last   int           // the last transaction that it said is committed
}

// startWriter starts a writer with the transaction of a number.
func (s *store) startWriter(t *testing.T, m *mount, n int) *sqliteWriter {
	t.Helper()
	// With one line for each transaction, not only when its buffer is full.
	cmd := s.person.command(context.Background(), m.point, "stdbuf", "-oL", "sqlite3", "-bail", "library.db")
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	w := &sqliteWriter{cmd: cmd, stdout: bufio.NewScanner(stdout), fed: make(chan struct{}), last: n - 1}
	go func() {
		defer close(w.fed)
		for ; ; n++ {
			var transaction strings.Builder
			transaction.WriteString("BEGIN;\n")
			for part := range parts {
				fmt.Fprintf(&transaction, "INSERT INTO written VALUES (%d, %d, randomblob(200));\n", n, part)
			}
			fmt.Fprintf(&transaction, "COMMIT;\nSELECT %d;\n", n)
			if _, err := io.WriteString(stdin, transaction.String()); err != nil {
				return // it has ended
			}
		}
	}()
	return w
}

// waitUntil waits until the transaction of a number is committed.
func (w *sqliteWriter) waitUntil(t *testing.T, n int) {
	t.Helper()
	for w.last < n {
		if !w.read() {
			t.Fatalf("the writer ended after transaction %d: %v", w.last, w.cmd.Wait())
		}
	}
}

func (w *sqliteWriter) read() bool {
	if !w.stdout.Scan() {
		return false
	}
	n, err := strconv.Atoi(w.stdout.Text())
	if err == nil {
		w.last = n
	}
	return err == nil
}

// end waits for a writer that was killed or whose drive is gone, and returns the last transaction that it said is committed.
func (w *sqliteWriter) end() int {
	for w.read() {
	}
	<-w.fed
	_ = w.cmd.Wait() // it was killed or has failed
	return w.last
}

// checkWritten checks that the transactions up to that of a number are there, at most one after them, and each is whole. It returns
// the last.
func (s *store) checkWritten(t *testing.T, m *mount, acknowledged int) int {
	t.Helper()
	got := s.sqlite(t, m, fmt.Sprintf(`PRAGMA integrity_check;
		SELECT count(*) FROM (SELECT n FROM written GROUP BY n HAVING count(DISTINCT part) <> %d OR sum(length(content)) <> %[1]d * 200);
		SELECT count(DISTINCT n) - max(n) FROM written;
		SELECT max(n) FROM written;`, parts))
	var last int
	if _, err := fmt.Sscanf(got, "ok\n0\n0\n%d", &last); err != nil || last < acknowledged || last > acknowledged+1 {
		t.Fatalf("the database, its broken transactions, the missing ones and the last one: %q, want ok, 0, 0 and %d or the next", got, acknowledged)
	}
	return last
}
