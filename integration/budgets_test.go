package integration

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
)

// A mount with the least that each budget may be works as any other, only slower: nothing waits for ever for memory or a connection that
// is in use. It keeps within its connections.
func TestADriveWorksWithTheSmallestBudgets(t *testing.T) {
	t.Parallel()
	const (
		files     = 8
		bytesEach = 4 << 20
	)
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	least := []string{"--pending", "8M", "--read-ahead", "1M", "--requests", "8M", "--connections", "2"}
	m := s.mountAt(t, alice, s.mountpoint(t), least...)
	source := rand.NewChaCha8([32]byte{1})
	contents := make([][]byte, files)
	for i := range contents {
		contents[i] = make([]byte, bytesEach)
		_, _ = source.Read(contents[i]) // it never fails
	}
	each := func(do func(path string, content []byte) error) {
		t.Helper()
		var all sync.WaitGroup
		for i, content := range contents {
			all.Go(func() {
				if err := do(m.path(strconv.Itoa(i)), content); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	each(func(path string, content []byte) error { return os.WriteFile(path, content, 0o600) })
	const connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'mediafs'"
	if n := number(t, s.connect(t), connections); n < 1 || n > 2 {
		t.Errorf("the mount has %d connections, want 1 or 2", n)
	}
	m.unmount(t)
	m = s.mountAt(t, alice, m.point, least...)
	each(func(path string, content []byte) error {
		got, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(got, content) {
			t.Errorf("%s comes back other than it was written", path)
		}
		return err
	})
}
