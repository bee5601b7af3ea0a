package integration

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What docs/sql.md shows works, in the order in which it is shown.
func TestTheExamplesOfAssetsBySQLWork(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	s.mount(t, alice).unmount(t) // she has a drive
	app := connect(t, s.withLogin(t, "webapp_docs").address)
	text, err := os.ReadFile(filepath.Join("..", "docs", "sql.md"))
	check(t, err)
	n := 0
	for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for _, statement := range strings.SplitAfter(block[1], ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			statement = strings.ReplaceAll(statement, ":token", "'"+alice.token(t)+"'")
			tag, err := app.Exec(context.Background(), statement, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
			if tag.RowsAffected() == 0 && !strings.Contains(statement, "mime_type = ") {
				t.Errorf("%s: no row", statement)
			}
			n++
		}
	}
	if n < 10 {
		t.Errorf("only %d statements were found", n)
	}
	s.mediafs(t, "check", "--store", s.address).ok(t)
}
