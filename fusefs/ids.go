package fusefs

import (
	"os"

	"mediafs/blobstore"
)

// ids shows the drive's owner as the user who mounted, and that user as the drive's owner: the two change places, for users
// and for groups, and every other number stays. That maps numbers one to one, so chown and stat agree, and each method is its
// own inverse: it serves for what goes to the kernel and for what comes from it.
type ids struct {
	ownerUID, ownerGID uint32 // on the drive
	mountUID, mountGID uint32 // on this machine
}

func newIDs(drive blobstore.Drive) ids {
	uid, gid := drive.Owner()
	return ids{
		ownerUID: uid, ownerGID: gid,
		mountUID: uint32(os.Geteuid()), mountGID: uint32(os.Getegid()),
	}
}

func (i ids) uid(id uint32) uint32 { return swap(id, i.ownerUID, i.mountUID) }
func (i ids) gid(id uint32) uint32 { return swap(id, i.ownerGID, i.mountGID) }

func swap(id, a, b uint32) uint32 {
	switch id {
	case a:
		return b
	case b:
		return a
	}
	return id
}
