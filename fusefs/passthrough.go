package fusefs

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// passthrough has the kernel read and write the plain files behind a drive itself (Linux 6.9 and later), if that is asked for.
// The kernel wants one backing file for all opens of a node, and either all of them passed through or none (fs/fuse/iomode.c), so
// the decision is made by a node's first open and kept in openNode.
type passthrough struct {
	server *fuse.Server          // nil: the kernel does not offer it, or has refused for good
	note   func(sentence string) // nil: it is not asked for
	why    string                // why server is nil
	used   atomic.Bool
}

const notPassedThrough = "files are not passed through: "

func (p *passthrough) init(server *fuse.Server, note func(string)) {
	p.note = note
	switch {
	case os.Geteuid() != 0:
		p.why = "the kernel does it only for root"
	case server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0:
		p.why = "the kernel is older than 6.9 or built without it (CONFIG_FUSE_PASSTHROUGH)"
	default:
		p.server = server
	}
}

// register names the plain file behind a node's first open file to the kernel and returns the name, or 0 if its content has to
// pass through here.
//
// A file with a set-user-ID or set-group-ID bit is not passed through: the kernel would write it with this process's rights,
// and so leave the bit (backing_file_write_iter of fs/backing-file.c runs with the mounter's credentials). Given such a bit while
// it is open and passed through, a file keeps it until it is written after having been closed.
func (p *passthrough) register(file blobstore.File, attr *blobstore.Attr) int32 {
	backed, ok := file.(blobstore.Backed)
	if !ok || p.note == nil || hasPrivileges(attr.Mode) {
		return 0
	}
	if p.server == nil {
		p.note(notPassedThrough + p.why)
		return 0
	}
	backing, errno := p.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(backed.Descriptor())})
	switch {
	case errno == 0:
		p.used.Store(true)
		return backing
	case errors.Is(errno, unix.EPERM):
		p.why = "the kernel does it only with CAP_SYS_ADMIN in the first user namespace"
	case errors.Is(errno, unix.ELOOP):
		p.why = "the store's folder is on a file system that lies on another one, such as overlayfs"
	case errors.Is(errno, unix.EOPNOTSUPP):
		p.why = "the file system of the store's folder does not allow it"
	default:
		p.note(notPassedThrough + "the kernel refuses: " + errno.Error())
		return 0
	}
	p.server = nil
	p.note(notPassedThrough + p.why)
	return 0
}

func (p *passthrough) unregister(backing int32) {
	if backing != 0 && p.server != nil {
		_ = p.server.UnregisterBackingFd(backing) // fails only with the connection, which takes the backing files along
	}
}
