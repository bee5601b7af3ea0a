package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// caches are those of the kernel. If they are not ours they are left alone.
type caches struct{ ours bool }

// settle writes out what the kernel has of files, so that the next step does not wait for what came before it.
func (c caches) settle() {
	if c.ours {
		unix.Sync()
	}
}

// drop writes it out and forgets it. Only root can; without root, what is cold for a mount is warm for the kernel.
func (c caches) drop() error {
	c.settle()
	if !c.dropped() {
		return nil
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("dropping the kernel's caches: %w", err)
	}
	return nil
}

// dropped says whether drop forgets anything.
func (c caches) dropped() bool { return c.ours && os.Geteuid() == 0 }
