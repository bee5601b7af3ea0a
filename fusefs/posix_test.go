package fusefs

import (
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPOSIX runs go-fuse's own suite for file systems.
func TestPOSIX(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			_, dir := mount(t, newDrive(t), Options{})
			posixtest.All[name](t, dir)
		})
	}
}
