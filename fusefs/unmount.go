package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// fusermount is the helper that mounts and unmounts for users who are not root, fusermount3(1).
const fusermount = "fusermount3"

// Unmount makes durable what is open and pending and unmounts. A mount in use is detached from its folder all the same: what
// is open there can then be read, but not changed any more, and Unmount waits until it is closed. (A file that is passed through
// can be written until then: the kernel does that without us.)
//
// It returns when nothing is served any more, or with the cause of ctx when that ends first. An error in making something
// durable is returned after unmounting. Unmounting what is not mounted any more does nothing.
func (m *Mount) Unmount(ctx context.Context) error {
	m.unmounting.Lock()
	defer m.unmounting.Unlock()
	if m.isDown() {
		return nil
	}
	synced := m.fs.handles.sync(ctx)
	if err := m.detach(ctx, false); err != nil && !m.isDown() {
		// Pages that programs changed in mapped files are still the kernel's alone: have them written now.
		synced = errors.Join(synced, m.writeBack(ctx))
		m.fs.frozen.Store(true)
		m.fs.waiting.end(blobstore.ErrReadOnly, func(*drive) bool { return true })
		synced = errors.Join(synced, m.fs.handles.sync(ctx))
		if err := m.detach(ctx, true); err != nil && !m.isDown() {
			m.fs.frozen.Store(false)
			return errors.Join(synced, fmt.Errorf("unmount %s: %w", m.mountpoint, err))
		}
	}
	select {
	case <-m.done:
		return synced
	case <-ctx.Done():
		return errors.Join(synced, fmt.Errorf("unmount %s: files in it are still open: %w", m.mountpoint, context.Cause(ctx)))
	}
}

func (m *Mount) isDown() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// detach takes the mount off its folder; unless lazy, only if nothing in it is in use.
func (m *Mount) detach(ctx context.Context, lazy bool) error {
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.mountpoint, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &stx)
	if err == nil && m.device != 0 && unix.Mkdev(stx.Dev_major, stx.Dev_minor) != m.device {
		return nil // somebody unmounted it before; what is there now is not ours
	}
	if m.direct {
		flags := 0
		if lazy {
			flags = unix.MNT_DETACH
		}
		return unix.Unmount(m.mountpoint, flags|unix.UMOUNT_NOFOLLOW)
	}
	arg := "-u"
	if lazy {
		arg = "-uz"
	}
	var stderr bytes.Buffer
	command := exec.CommandContext(ctx, fusermount, arg, m.mountpoint)
	command.Stderr = &stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// writeBack has the kernel write the changed pages that it holds of files in the mount. Another process, sync(1), asks it to: a
// thread of ours that waited for an answer of ours could not end when this program is killed, and neither could the mount nor
// anybody who uses it.
func (m *Mount) writeBack(ctx context.Context) error {
	var stderr bytes.Buffer
	command := exec.CommandContext(ctx, "sync", "--file-system", m.mountpoint)
	command.Stderr = &stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("sync %s: %w: %s", m.mountpoint, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
