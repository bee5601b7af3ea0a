// Package pgtest gives tests a Postgres server of their own.
//
// A test binary calls [Main] from its TestMain: it starts one private cluster, in a temporary folder and on a Unix socket
// there, and takes it away when the tests are done. Each test asks [New] for a database. A server that already runs on the
// machine is never used, and none outlives the test binary, even one that is killed.
//
// The server's process is waited for by a goroutine of its own, so a test that looks for leaked goroutines has to ignore
// those that ran before it (goleak.IgnoreCurrent).
//
// Where Postgres is not installed a test that asks for a database is skipped, and fails if CI=true is in the environment.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Superuser is the login that New and Cluster.URL give.
const Superuser = "postgres"

// deadline is for one thing asked of a server that is on this machine and otherwise idle.
const deadline = time.Minute

// shared is the cluster of the test binary, or why there is none.
var shared struct {
	cluster   *Cluster
	err       error
	databases atomic.Int64
}

// Main runs the tests of a package with a cluster and exits.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to take away: it returns what to exit with.
func Run(m *testing.M) int {
	clearEnvironment()
	shared.cluster, shared.err = create("", hasty...)
	if shared.err != nil {
		return m.Run()
	}
	code := m.Run()
	if err := shared.cluster.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// clearEnvironment takes away what would lead a client, ours or psql, to another server or another way to sign in
// (the environment variables of libpq).
func clearEnvironment() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // fails for impossible names alone
		}
	}
}

// New makes a database and returns its URL, with the superuser's login. The database goes when the test ends, with whoever
// is still connected.
func New(t testing.TB) string {
	t.Helper()
	c := require(t, shared.cluster, shared.err)
	name := fmt.Sprintf("test_%d", shared.databases.Add(1))
	must(t, statement(c.URL("postgres"), "CREATE DATABASE "+name))
	t.Cleanup(func() { must(t, statement(c.URL("postgres"), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")) })
	return c.URL(name)
}

// Login returns the URL of the same database (itself given by its URL) for another role. The role is made, able to sign in
// and nothing more, if it is not there; it stays as long as the cluster.
func Login(t testing.TB, database, role string) string {
	t.Helper()
	u, err := url.Parse(database)
	must(t, err)
	must(t, statement(database, fmt.Sprintf(`DO $$ BEGIN
		CREATE ROLE %s LOGIN;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
	END $$`, pgx.Identifier{role}.Sanitize())))
	parameters := u.Query()
	parameters.Set("user", role)
	return databaseURL(strings.TrimPrefix(u.Path, "/"), parameters)
}

// NewCluster starts a cluster for one test, which may do with it what it likes. It goes when the test ends.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	return NewClusterIn(t, "")
}

// NewClusterIn is NewCluster for a test of the folder that the cluster is kept in: a new one in parent, which the user postgres must
// be able to get to. There Postgres makes it as it does by itself, and with checksums.
func NewClusterIn(t testing.TB, parent string) *Cluster {
	t.Helper()
	clearEnvironment()
	c, err := create(parent, durable...)
	c = require(t, c, err)
	t.Cleanup(func() { must(t, c.Remove()) })
	return c
}

// require skips or fails the test if there is no cluster.
func require(t testing.TB, c *Cluster, err error) *Cluster {
	t.Helper()
	switch {
	case err == nil && c == nil:
		t.Fatal("no cluster: call pgtest.Main from TestMain")
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// statement runs one statement on a connection of its own.
func statement(database, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
