package fusefs

import "mediafs/blobstore"

// ids shows a drive's owner as a user of this machine, who is the one who mounted where it is not said otherwise, and that user
// as the drive's owner: the two change places, for users and for groups, and every other number stays. That maps numbers one to
// one, so chown and stat agree, and each method is its own inverse: it serves for what goes to the kernel and for what comes from
// it.
type ids struct {
	ownerUID, ownerGID uint32 // on the drive
	mountUID, mountGID uint32 // on this machine
}

// newIDs shows the owner of a drive as the user uid and the group gid.
func newIDs(drive blobstore.Drive, uid, gid uint32) ids {
	i := ids{mountUID: uid, mountGID: gid}
	i.ownerUID, i.ownerGID = drive.Owner()
	return i
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
