package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// childVariable makes the test binary start a cluster, say its process and folder, and wait to be killed.
const childVariable = "PGTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		Main(m)
	}
	c, err := create("", durable...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.server.process.Pid, c.dir)
	select {}
}

// value runs a query of one text value.
func value(t *testing.T, database, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var v string
	if err := conn.QueryRow(ctx, query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func name(t *testing.T, database string) string {
	t.Helper()
	return value(t, database, "SELECT current_database()::text")
}

func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	first, second := New(t), New(t)
	must(t, statement(first, "CREATE TABLE of_first (x int)"))
	if err := statement(second, "SELECT * FROM of_first"); err == nil {
		t.Error("the second database shows a table of the first")
	}
}

func TestADatabaseGoesWithItsTest(t *testing.T) {
	var gone string
	t.Run("inner", func(t *testing.T) {
		u := New(t)
		gone = name(t, u)
		// A client that a test forgot does not keep it.
		if _, err := pgx.Connect(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	})
	query := "SELECT count(*)::text FROM pg_database WHERE datname = '" + gone + "'"
	if got := value(t, New(t), query); got != "0" {
		t.Errorf("%s databases are called %q after its test, want 0", got, gone)
	}
}

func TestLoginIsTheSameDatabaseAsAnotherRole(t *testing.T) {
	u := New(t)
	for range 2 { // the role is there the second time
		login := Login(t, u, "some role")
		if got := value(t, login, "SELECT current_user::text"); got != "some role" {
			t.Errorf("signed in as %q", got)
		}
		if got, want := name(t, login), name(t, u); got != want {
			t.Errorf("database %q, want %q", got, want)
		}
		if got := value(t, login, "SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user"); got != "false" {
			t.Error("the role is a superuser")
		}
	}
}

func TestAServerIsPrivateAndThatOfOneTestDurable(t *testing.T) {
	if got := value(t, New(t), "SHOW listen_addresses"); got != "" {
		t.Errorf("listen_addresses of the shared server is %q, want none", got)
	}
	u := NewCluster(t).URL("postgres")
	for setting, want := range map[string]string{
		"listen_addresses": "", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	} {
		if got := value(t, u, "SHOW "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
}

func TestCommittedDataOutlivesEveryWayToStop(t *testing.T) {
	c := NewCluster(t)
	u := c.URL("postgres")
	must(t, statement(u, "CREATE TABLE kept (n int)"))
	for i, end := range []func() error{
		func() error { return c.Stop(Smart) },
		func() error { return c.Stop(Fast) },
		func() error { return c.Stop(Immediate) },
		c.Kill,
	} {
		must(t, statement(u, fmt.Sprintf("INSERT INTO kept VALUES (%d)", i)))
		must(t, end())
		if err := statement(u, "SELECT 1"); err == nil {
			t.Fatalf("stop %d: the server still answers", i)
		}
		must(t, c.Start())
		if got, want := value(t, u, "SELECT count(*)::text FROM kept"), strconv.Itoa(i+1); got != want {
			t.Errorf("stop %d: %s rows, want %s", i, got, want)
		}
	}
	must(t, c.Restart())
	if got := value(t, u, "SELECT count(*)::text FROM kept"); got != "4" {
		t.Errorf("%s rows after Restart, want 4", got)
	}
}

func TestStartingTwiceAndStoppingTwiceAreErrors(t *testing.T) {
	c := NewCluster(t)
	if err := c.Start(); err == nil {
		t.Error("started twice")
	}
	must(t, c.Stop(Fast))
	if err := c.Stop(Fast); err == nil {
		t.Error("stopped twice")
	}
}

func TestAClusterLeavesNoFolder(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		u, err := url.Parse(NewCluster(t).URL("postgres"))
		must(t, err)
		dir = u.Query().Get("host")
		if _, err := os.Stat(filepath.Join(dir, ".s.PGSQL.5432")); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("stat of the folder after the test: %v, want that it is not there", err)
	}
}

func TestTheServerDiesWithAKilledTestBinary(t *testing.T) {
	if _, err := findPrograms(); err != nil {
		require(t, nil, err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pidText, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	defer os.RemoveAll(dir)
	pid, err := strconv.Atoi(pidText)
	must(t, err)
	server, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	defer unix.Close(server)

	must(t, child.Process.Kill())
	_ = child.Wait() // killed

	// A pidfd becomes readable when its process ends, pidfd_open(2).
	ended := []unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ended, int(deadline.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		must(t, err)
		if n == 0 {
			t.Errorf("process %d still runs %v after the test binary was killed", pid, deadline)
		}
		return
	}
}
