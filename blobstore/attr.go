package blobstore

import (
	"time"

	"golang.org/x/sys/unix"
)

// Ino is the number of a node, unique in its drive.
type Ino uint64

// RootIno is the number of a drive's root folder.
const RootIno Ino = 1

// Limits of names and content. They are those of Linux, or of the drive where that is lower.
const (
	MaxNameLen    = 255        // bytes of a name; NAME_MAX of limits.h
	MaxTargetLen  = 4095       // bytes of a symbolic link's target; PATH_MAX of limits.h less the NUL
	MaxXattrName  = 255        // bytes; XATTR_NAME_MAX of limits.h
	MaxXattrValue = 64 << 10   // bytes; XATTR_SIZE_MAX of limits.h
	MaxLinks      = 65000      // names of a node; EXT4_LINK_MAX
	MaxFileSize   = 1<<44 - 1  // bytes: 16 TiB less one, the largest file of ext4 with 4 KiB blocks
	BlockSize     = 4096       // bytes: the preferred size of I/O, st_blksize
	blockUnit     = int64(512) // bytes in a unit of st_blocks, inode(7)
)

// Attr is what stat(2) tells of a node; see inode(7) for the fields.
type Attr struct {
	Ino        Ino
	Generation uint64 // tells apart two nodes that had one number after another; 0 where numbers are never used again
	Mode       uint32 // S_IFMT type and the 12 permission bits
	Nlink      uint32 // names; for a folder 2 and the number of folders in it, as ext4 counts
	UID, GID   uint32
	Rdev       uint32 // the device of a character or block special file, in the kernel's 32-bit encoding (new_encode_dev)
	Size       int64  // bytes; for a symbolic link the length of its target
	Allocated  int64  // bytes that content takes where it is stored; less than Size where there are holes
	AtimeNs    int64  // nanoseconds since 1970-01-01 UTC, like the next two
	MtimeNs    int64
	CtimeNs    int64
}

// Blocks is st_blocks: Allocated in units of 512 bytes.
func (a *Attr) Blocks() int64 { return (a.Allocated + blockUnit - 1) / blockUnit }

// Type is the S_IFMT part of the mode.
func (a *Attr) Type() uint32 { return a.Mode & unix.S_IFMT }

// IsDir says whether the node is a folder.
func (a *Attr) IsDir() bool { return a.Type() == unix.S_IFDIR }

// IsRegular says whether the node is a regular file.
func (a *Attr) IsRegular() bool { return a.Type() == unix.S_IFREG }

// NewNode describes a node to be made. Where the parent folder has S_ISGID, the node's group is the parent's and a new folder
// gets S_ISGID too (inode_init_owner of the kernel); GID counts otherwise.
type NewNode struct {
	Mode     uint32 // type and permissions; the umask has been applied
	UID, GID uint32 // of the caller
	Rdev     uint32 // for special files
	Target   string // for symbolic links; 1 to MaxTargetLen bytes
}

// AttrChange says which attributes to change, and to what. Changing anything sets ctime to the time of the change; changing
// the size also sets mtime, unless SetMtime gives one.
type AttrChange struct {
	Set      AttrSet
	Mode     uint32 // the 12 permission bits; the type never changes
	UID, GID uint32
	Size     int64
	AtimeNs  int64
	MtimeNs  int64
}

// AttrSet is a set of attributes.
type AttrSet uint32

// The members of an AttrSet.
const (
	SetMode AttrSet = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	// SetKillPriv takes the set-user-ID bit away, and the set-group-ID bit if the group may execute, from a regular
	// file: what writing, truncating or a change of owner by an ordinary user does (inode(7)). It goes with the
	// others: Mode given with SetMode is what it is applied to.
	SetKillPriv
)

// Has says whether all of what is in the set.
func (s AttrSet) Has(what AttrSet) bool { return s&what == what }

// DropPriv returns mode as SetKillPriv leaves it.
func DropPriv(mode uint32) uint32 {
	if mode&unix.S_IFMT != unix.S_IFREG {
		return mode
	}
	mode &^= unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode
}

// AtimeDue says whether reading a node now moves its time of access, as relatime of mount(8) has it: when it is not later than what
// else happened to the node, or a day old.
func AtimeDue(a *Attr, nowNs int64) bool {
	const day = int64(24 * time.Hour)
	return a.AtimeNs <= a.MtimeNs || a.AtimeNs <= a.CtimeNs || nowNs-a.AtimeNs >= day
}

// OpenFlags say how a file is opened.
type OpenFlags uint32

// The flags of Open and Create. Without OpenWrite a file is only read.
const (
	OpenRead OpenFlags = 1 << iota
	OpenWrite
	OpenTruncate  // cut to nothing
	OpenExclusive // Create alone: the name must not be there
	OpenAppend    // the kernel gives WriteAt the end of the file as it knows it
	OpenNoAtime   // reading leaves the time of access as it is
)

// Has says whether all of what is set.
func (f OpenFlags) Has(what OpenFlags) bool { return f&what == what }

// Rename is a call of renameat2(2).
type Rename struct {
	Parent    Ino
	Name      string
	NewParent Ino
	NewName   string
	Mode      RenameMode
}

// RenameMode says what happens to a new name that is there already.
type RenameMode int

// The modes of Rename.
const (
	RenameReplace   RenameMode = iota // it is replaced
	RenameNoReplace                   // ErrExist (RENAME_NOREPLACE)
	RenameExchange                    // the two change places (RENAME_EXCHANGE)
)

// AllocateMode says what Allocate does to a range.
type AllocateMode int

// The modes of Allocate, fallocate(2).
const (
	AllocateExtend    AllocateMode = iota // reserve; the file grows to the end of the range
	AllocateKeepSize                      // reserve; the size stays (FALLOC_FL_KEEP_SIZE)
	AllocatePunchHole                     // the range becomes a hole; the size stays (FALLOC_FL_PUNCH_HOLE)
	AllocateZero                          // the range reads as zero; the file grows (FALLOC_FL_ZERO_RANGE)
	AllocateZeroKeep                      // the same, and the size stays
)

// SeekWhence says what Seek looks for.
type SeekWhence int

// What Seek finds, lseek(2).
const (
	SeekData SeekWhence = iota // SEEK_DATA
	SeekHole                   // SEEK_HOLE; the end of the file is one
)

// XattrMode says what SetXattr expects to be there.
type XattrMode int

// The modes of SetXattr.
const (
	XattrSet     XattrMode = iota // either
	XattrCreate                   // not there yet (XATTR_CREATE)
	XattrReplace                  // there (XATTR_REPLACE)
)

// CheckName gives the error of a name that no folder can hold, or nil: ErrNotExist for an empty one, ErrNameTooLong, and
// ErrInvalid for ".", "..", a '/' or a NUL.
func CheckName(name string) error {
	switch {
	case name == "":
		return ErrNotExist
	case len(name) > MaxNameLen:
		return ErrNameTooLong
	case name == "." || name == "..":
		return ErrInvalid
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return ErrInvalid
		}
	}
	return nil
}
