package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// close(2) returns when the data is stored, also when another descriptor of the same open file is being closed meanwhile: as a
// process that has just been forked does with what it inherits.
func TestEveryCloseWaitsUntilTheDataIsStored(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	m := s.mount(t, s.addUser(t, "alice"))
	file, err := os.Create(m.path("file"))
	check(t, err)
	second, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)

	// Whoever stores the file has to wait for this transaction. It begins before anything is written, for what is written and not
	// closed leaves by itself after some seconds.
	ctx := context.Background()
	conn, watcher := s.connect(t), s.connect(t)
	tx, err := conn.Begin(ctx)
	check(t, err)
	_, err = tx.Exec(ctx, "SELECT FROM mediafs.nodes FOR UPDATE")
	check(t, err)
	_, err = file.WriteString("to be stored")
	check(t, err)

	closed := make(chan error, 2)
	go func() { closed <- unix.Close(second) }()
	const waiting = `SELECT count(*) FROM pg_locks WHERE NOT granted
		AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())`
	for number(t, watcher, waiting) == 0 { // not there yet
	}
	go func() { closed <- file.Close() }()
	select {
	case err := <-closed:
		t.Errorf("close returned (%v) while nothing could be stored", err)
	case <-time.After(time.Second): // so late that whoever does not wait has returned
	}
	check(t, tx.Rollback(ctx))
	check(t, <-closed)
	if !t.Failed() {
		check(t, <-closed)
	}
	if got := readFile(t, m.path("file")); got != "to be stored" {
		t.Errorf("read %q", got)
	}
}
