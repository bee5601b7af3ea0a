package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore/pgstore/pgtest"
)

// A database server keeps its data on a drive, and syncs it there: what it has committed is there after it was ended in the
// middle of its work, once it has recovered, and after the drive was mounted again; and no page and no index of it is damaged.
func TestPostgresKeepsItsDataOnADrive(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		var options []string
		if os.Geteuid() == 0 {
			options = []string{"--allow-other"} // root may not run a server
		}
		alice := s.addUser(t, "alice")
		program, err := lean() // initdb makes a thousand files, and syncs each
		check(t, err)
		m := s.mountWith(t, program, alice, s.mountpoint(t), options...)
		check(t, os.Chmod(m.point, 0o755))
		cluster := pgtest.NewClusterIn(t, m.point)
		run := func(command string, args ...string) string {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			out, err := cluster.Run(ctx, command, args...)
			check(t, err)
			return out
		}
		run("pgbench", "--initialize", "--quiet", "--scale", size("1", "20"))
		t.Log(run("pgbench", "--client=4", "--time", size("3", "60"), "--no-vacuum"))
		before := balanced(t, cluster)

		// Four clients work while the server is ended. pgbench logs each transaction that it was told is committed.
		ended := make(chan error)
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		go func() {
			_, err := cluster.Run(ctx, "pgbench", "--client=4", "--time=3600", "--no-vacuum", "--log")
			ended <- err
		}()
		waitFor(t, "pgbench at work", func() bool { return transactionsOf(t, cluster) > before+100 })
		check(t, cluster.Stop(pgtest.Immediate))
		if err := <-ended; err == nil {
			t.Error("pgbench says nothing of its server's end")
		}
		acknowledged := before
		logs, err := filepath.Glob(m.path("pg*", "pgbench_log.*"))
		check(t, err)
		for _, log := range logs {
			acknowledged += int64(strings.Count(readFile(t, log), "\n"))
		}
		check(t, cluster.Start())
		after := balanced(t, cluster)
		t.Logf("%d transactions were acknowledged when the server was ended, %d are there", acknowledged, after)
		if after < acknowledged || after > acknowledged+4 {
			t.Errorf("%d transactions are there, want the %d that were acknowledged and at most one more for each client", after, acknowledged)
		}
		run("pg_amcheck", "--install-missing", "--heapallindexed")
		check(t, cluster.Stop(pgtest.Fast))
		m.unmount(t)

		s.mountWith(t, program, alice, m.point, options...)
		run("pg_checksums", "--check")
		check(t, cluster.Start())
		t.Cleanup(func() { check(t, cluster.Stop(pgtest.Fast)) }) // before its drive is unmounted
		if got := balanced(t, cluster); got != after {
			t.Errorf("mounted again, the database has %d transactions, want %d", got, after)
		}
	})
}

func transactionsOf(t *testing.T, cluster *pgtest.Cluster) (n int64) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), cluster.URL("postgres"))
	check(t, err)
	defer conn.Close(context.Background())
	return number(t, conn, "SELECT count(*) FROM pgbench_history")
}

// balanced checks that every transaction of pgbench is there as a whole, and returns how many there are. Each adds the same amount
// to an account, its teller and its branch, and records that.
func balanced(t *testing.T, cluster *pgtest.Cluster) int64 {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), cluster.URL("postgres"))
	check(t, err)
	defer conn.Close(context.Background())
	var accounts, tellers, branches, history int64
	check(t, conn.QueryRow(context.Background(), `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)`).
		Scan(&accounts, &tellers, &branches, &history))
	if accounts != history || tellers != history || branches != history {
		t.Errorf("the accounts have %d, the tellers %d and the branches %d, want the %d of all transactions", accounts, tellers, branches, history)
	}
	return number(t, conn, "SELECT count(*) FROM pgbench_history")
}
