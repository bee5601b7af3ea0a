package fusefs

import (
	"golang.org/x/sync/errgroup"

	"mediafs/blobstore"
)

// A session that ends takes back what it gave. From the moment that a drive is suspended:
//
//   - Every request that needs it is refused, also of files that are open.
//   - What the kernel has of the content of open files is dropped, page by page, so that reading them asks here, and so does
//     touching a page of a mapped file: the program gets SIGBUS. Of a file that is not open the kernel uses nothing without
//     asking for it to be opened.
//   - What the kernel knows of names and attributes ends by itself within a second (cache.go).
//
// Pages that programs have changed in mapped files, and that only the kernel has, it writes before it drops them. Those writes are
// taken (beginUnchecked): they were made while that was allowed, and the drive can keep or put aside what they hold. For that, the order
// matters: refuse first, so that no page is read or changed any more, then drop.
//
// Closing files and unmounting go on. With Options.Passthrough a file that is open stays readable and writable for those who have it
// open, because the kernel does not ask.

// maxDropping is how many nodes the kernel drops at the same time: one may have to wait for a request on its way to a store that
// does not answer.
const maxDropping = 32

// Suspend answers every request that needs a drive with err, until Resume: the session that the mount is for has ended, and err
// is the one of package auth that says how. It returns when the kernel has no content any more.
func (m *Mount) Suspend(err error) {
	if m.fs.suspended.Swap(&err) == nil {
		m.fs.recordSession(err)
	}
	all := func(*drive) bool { return true }
	m.fs.waiting.end(err, all)
	m.dropContent(all)
}

// Resume answers requests again, but of drives that are suspended for themselves. What is open can be used on.
func (m *Mount) Resume() {
	if m.fs.suspended.Swap(nil) != nil {
		m.fs.recordSession(nil)
	}
}

// SuspendDrive is Suspend for one drive of a mount of many, open or not, until ResumeDrive. It does nothing in a mount of one.
func (m *Mount) SuspendDrive(id blobstore.DriveID, err error) {
	if m.fs.many == nil {
		return
	}
	m.fs.many.suspend(id, err)
	one := func(d *drive) bool { return d.number == id }
	m.fs.waiting.end(err, one)
	m.dropContent(one)
}

// ResumeDrive answers requests of one drive again.
func (m *Mount) ResumeDrive(id blobstore.DriveID) {
	if m.fs.many != nil {
		m.fs.many.resume(id)
	}
}

// dropContent has the kernel write what it alone has of the open files of some drives, and drop all it has of them.
func (m *Mount) dropContent(of func(*drive) bool) {
	var dropping errgroup.Group
	dropping.SetLimit(maxDropping)
	for _, node := range m.fs.handles.nodesOf(of) {
		dropping.Go(func() error {
			m.fs.dropContent(node)
			return nil
		})
	}
	_ = dropping.Wait() // always nil
}

// nodesOf are the nodes of the open files of some drives, as the kernel names them.
func (h *handles) nodesOf(of func(*drive) bool) []uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var ids []uint64
	for id, node := range h.nodes {
		if of(node.drive) {
			ids = append(ids, id)
		}
	}
	return ids
}

// suspend has the drive of a number answer nothing, now or when it is opened.
func (m *drives) suspend(number blobstore.DriveID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended[number] = err
	if d := m.opened[number]; d != nil && d.suspended.Swap(&err) == nil {
		d.recordSession(err)
	}
}

func (m *drives) resume(number blobstore.DriveID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ended, number)
	if d := m.opened[number]; d != nil && d.suspended.Swap(nil) != nil {
		d.recordSession(nil)
	}
}
