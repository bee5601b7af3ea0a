package fusefs

import "mediafs/blobstore"

// The kernel knows a node by a 64-bit number that it gets with each entry and gives back with each request:
//
//	 63            44 43                                  0
//	+----------------+-------------------------------------+
//	|     drive      |                 ino                 |
//	+----------------+-------------------------------------+
//
// A mount of one drive has 0 for the drive and leaves all 64 bits to the ino, so there the two numbers are one. The root of the
// mount is 1 for the kernel (FUSE_ROOT_ID of linux/fuse.h) and for the drive (blobstore.RootIno). Nothing has to be remembered to
// tell one from the other, so a new daemon knows every node of the old one. 0 is no node.

// nodeID is the kernel's number of a node.
func nodeID(ino blobstore.Ino) uint64 { return uint64(ino) }

// inoOf is the drive's number of what the kernel calls id.
func inoOf(id uint64) blobstore.Ino { return blobstore.Ino(id) }
