package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// shield keeps what the memory of this process has in it, a token or a password for one, from other processes of its user. No
// core is dumped, and the process is not dumpable: its files in /proc, environ and mem among them, are root's, and nobody but
// root may trace it (PR_SET_DUMPABLE in prctl(2), ptrace(2) under "Ptrace access mode checking"). Programs that it starts have
// no part in that but the limit: execve(2) makes a process dumpable again.
func shield() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("can't forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("can't close the process to others: %w", err)
	}
	return nil
}
