package fusefs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// readAheadKiB is how far the kernel reads ahead of a program that reads one thing after the other. Its own setting, 128 KiB, also bounds what one
// request asks for, so a drive would be read in small pieces, hardly more than one at a time.
const readAheadKiB = 4096

// raiseReadAhead sets it for this mount. Only root may: for others the kernel takes what it offers (FUSE_INIT, max_readahead) as the most.
func (m *Mount) raiseReadAhead() error {
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(m.device), unix.Minor(m.device))
	return os.WriteFile(path, fmt.Append(nil, readAheadKiB), 0)
}
