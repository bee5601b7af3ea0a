package integration

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore/pgstore/pgtest"
)

// A kind is a kind of store.
type kind string

const (
	folder   kind = "folder"
	postgres kind = "postgres"
)

// A store is a store under test.
type store struct {
	kind     kind
	address  string // what --store takes
	root     string // the folder; empty on Postgres
	database string // the superuser's address of the database; empty on folders
	person   person // who runs the program
	dir      string // for token files and mountpoints; the person's
}

// onEachKind runs a test for each kind of store, beside other tests.
func onEachKind(t *testing.T, test func(t *testing.T, k kind)) {
	t.Parallel()
	for _, k := range []kind{folder, postgres} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// onEachStore runs a test on a fresh store of each kind.
func onEachStore(t *testing.T, test func(t *testing.T, s *store)) {
	onEachKind(t, func(t *testing.T, k kind) { test(t, newStore(t, k, person{})) })
}

// asEveryone runs a test on a fresh store of each kind, as ourselves and as an ordinary user.
func asEveryone(t *testing.T, test func(t *testing.T, s *store)) {
	onEachKind(t, func(t *testing.T, k kind) {
		t.Run("as "+currentUser(), func(t *testing.T) {
			t.Parallel()
			test(t, newStore(t, k, person{}))
		})
		if os.Geteuid() != 0 {
			return
		}
		t.Run("as an ordinary user", func(t *testing.T) {
			t.Parallel()
			test(t, newStore(t, k, nobody(t)))
		})
	})
}

func currentUser() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return "an ordinary user"
}

// newStore makes a store with mediafs init.
func newStore(t testing.TB, k kind, p person) *store {
	t.Helper()
	s := bareStore(t, k, p)
	s.mediafs(t, "init", "--store", s.address).ok(t)
	return s
}

// bareStore is a place for a store, which mediafs init has not yet seen.
func bareStore(t testing.TB, k kind, p person) *store {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		missing(t, err.Error())
	}
	s := &store{kind: k, person: p, dir: tempDir(t)}
	give(t, p, s.dir)
	switch k {
	case folder:
		s.root = filepath.Join(s.dir, "store")
		s.address = "file://" + s.root
	case postgres:
		s.database = pgtest.New(t)
		s.address = s.database
	}
	return s
}

// mediafs runs the program to its end.
func (s *store) mediafs(t testing.TB, args ...string) result {
	t.Helper()
	path, err := program()
	check(t, err)
	return s.person.run(t, s.dir, append([]string{path}, args...)...)
}

// A user is a user of a store.
type user struct {
	name      string
	tokenFile string
}

func (u user) token(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(u.tokenFile)
	check(t, err)
	return strings.TrimSpace(string(text))
}

// addUser makes a user with mediafs user add.
func (s *store) addUser(t testing.TB, name string, options ...string) user {
	t.Helper()
	args := append([]string{"user", "add", "--store", s.address}, options...)
	token := s.mediafs(t, append(args, name)...).ok(t)
	return user{name, s.saveToken(t, name, token)}
}

func (s *store) saveToken(t testing.TB, name, token string) string {
	t.Helper()
	path := filepath.Join(s.dir, name+".token")
	check(t, os.WriteFile(path, []byte(token), 0o600))
	give(t, s.person, path)
	return path
}

// folder is where a folder store keeps a user's drive.
func (s *store) folder(u user) string { return filepath.Join(s.root, u.name) }

// connect connects to the store's database as the superuser, who sees all rows.
func (s *store) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	return connect(t, s.database)
}

func connect(t testing.TB, address string) *pgx.Conn {
	t.Helper()
	conn, err := connectTo(address)
	check(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func connectTo(address string) (*pgx.Conn, error) { return pgx.Connect(context.Background(), address) }

// number runs a query that gives one number.
func number(t testing.TB, conn *pgx.Conn, query string, args ...any) (n int64) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// mountingRole is the role that mounts use the tables as: the one beside the owner and the operations' worker that may read them.
func (s *store) mountingRole(t testing.TB) string {
	t.Helper()
	const query = `SELECT DISTINCT grantee::regrole::text
		FROM pg_class c, aclexplode(c.relacl)
		WHERE c.oid = 'mediafs.nodes'::regclass AND privilege_type = 'SELECT' AND grantee <> c.relowner AND grantee <> 'mediafs_worker'::regrole`
	rows, err := s.connect(t).Query(context.Background(), query)
	check(t, err)
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	check(t, err)
	if len(roles) != 1 {
		t.Fatalf("the roles that may read mediafs.nodes are %q, want the mounting role alone", roles)
	}
	return strings.Trim(roles[0], `"`)
}

// withLogin is the store as another login reaches it: a role that may do what the mounting role may, and no more.
func (s *store) withLogin(t testing.TB, login string) *store {
	t.Helper()
	other := *s
	other.address = pgtest.Login(t, s.database, login)
	_, err := s.connect(t).Exec(context.Background(),
		"GRANT "+pgx.Identifier{s.mountingRole(t)}.Sanitize()+" TO "+pgx.Identifier{login}.Sanitize())
	check(t, err)
	return &other
}

// databaseNamed is the address of another database of the same server.
func (s *store) databaseNamed(t testing.TB, name string) string {
	t.Helper()
	u, err := url.Parse(s.database)
	check(t, err)
	u.Path = "/" + name
	return u.String()
}
