package integration

import (
	"os"
	"syscall"
	"testing"
)

// A mount that is told to end while it is busy stores what is pending and goes.
func TestASignalInTheMiddleOfACopyDrainsAndUnmounts(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			onEachStore(t, func(t *testing.T, s *store) {
				alice := s.addUser(t, "alice")
				m := s.mount(t, alice)
				c := copyInto(t, m.point)
				c.waitUntilBusy(t)
				check(t, m.cmd.Process.Signal(signal))
				c.done.Wait() // it fails soon
				whole := c.finish(t)
				m.wait(t)
				entries, err := os.ReadDir(m.point)
				check(t, err)
				if len(entries) != 0 {
					t.Errorf("%d files came to be in the folder under the mount", len(entries))
				}

				m = s.mountAt(t, alice, m.point)
				areWhole(t, m.point, whole)
			})
		})
	}
}
