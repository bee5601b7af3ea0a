package main

import (
	"errors"
	"os"
	"path/filepath"
)

// spoolFolder is where what a mount could not store is put aside: $XDG_STATE_HOME/mediafs/spool, else
// /var/lib/mediafs/spool for root and ~/.local/state/mediafs/spool for others (XDG Base Directory
// Specification). The folder around it is made.
func spoolFolder() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as the specification says
		home, err := os.UserHomeDir()
		switch {
		case os.Geteuid() == 0:
			state = "/var/lib"
		case err != nil || !filepath.IsAbs(home):
			return "", errors.New("set HOME or XDG_STATE_HOME to a folder of yours")
		default:
			state = filepath.Join(home, ".local", "state")
		}
	}
	folder := filepath.Join(state, "mediafs")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(folder, "spool"), nil
}
