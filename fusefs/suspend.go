package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Suspend answers every request that needs the drive with err, until Resume: the session that the drive is mounted for has ended,
// and err is the one of package auth that says how. What the kernel has cached of open files is dropped, so that reading them
// asks here; what it has cached of names and attributes ends by itself within a second (cache.go). A file that is passed
// through stays readable for those who have it open: the kernel does not ask for it.
//
// Closing files and unmounting go on. What is pending is kept.
func (m *Mount) Suspend(err error) {
	m.fs.suspended.Store(&err)
	for _, node := range m.fs.handles.nodeIDs() {
		// ENOENT: the kernel knows the node no more, and so has nothing of it.
		if status := m.server.InodeNotify(node, 0, 0); status != fuse.OK && status != fuse.ENOENT {
			m.fs.log.Warn("the kernel may still have content of an open file", "node", node, "error", status)
		}
	}
}

// Resume answers requests again.
func (m *Mount) Resume() { m.fs.suspended.Store(nil) }

// nodeIDs are the nodes of the open files, as the kernel names them.
func (h *handles) nodeIDs() []uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	ids := make([]uint64, 0, len(h.nodes))
	for id := range h.nodes {
		ids = append(ids, id)
	}
	return ids
}
