// Package blobstore says what a store of drives is, and nothing of how one is kept.
//
// A Store keeps drives; a Drive is one owner's tree of nodes: files, folders, links and special files. Three packages
// below this one keep drives: dirstore in folders, pgstore in Postgres, memstore in memory, as the model that the other
// two are tested against. Package storetest is the suite that all three pass.
//
// There is no way to a drive but [Store.Open], and no way to call that without a session: a program that forgets to ask who
// somebody is has nothing to read from.
//
// # Names and numbers
//
// A name is any sequence of 1 to 255 bytes without '/' and NUL, other than "." and ".."; it need not be UTF-8. A node is
// known by its [Ino]. Every method takes numbers, never paths, so nothing here resolves a symbolic link.
//
// # Concurrency
//
// Every method of every type here may be called at any time from any goroutine, unless its comment says otherwise. Each
// takes a context and returns soon after that context ends, with an error that wraps context.Cause(ctx).
//
// # Errors
//
// Methods return the sentinels of this package (see errors.go) wrapped with the operation and the node, or, when the session
// has ended, those of package auth. Test them with errors.Is. An error that wraps none of them is a fault of the backend.
package blobstore

import (
	"context"

	"mediafs/auth"
)

// A Store keeps drives. What a session may open depends on its role (auth.Role):
//
//	user   their own drive
//	admin  every drive, theirs and the public one included
//	guest  the public drive, to read
type Store interface {
	// Open returns the drive of the session's user, making an empty one at the first time; for a guest the public
	// drive, which refuses every change with ErrReadOnly. The zero Session opens nothing: it gives auth.ErrInvalid.
	Open(ctx context.Context, session auth.Session) (Drive, error)

	// OpenDrive returns a drive by its name, for an admin. ErrNotExist if there is no such drive; and for every other
	// session, whatever there is, unless the name is that of the drive which Open gives it.
	OpenDrive(ctx context.Context, session auth.Session, name DriveName) (Drive, error)

	// MakeDrive makes the empty drive of a user who has none yet, for an admin; it does nothing if the drive is there. Whoever signs in as that user has
	// it. ErrAccess unless the session is an admin's, auth.ErrUserID for an id that no drive can have.
	MakeDrive(ctx context.Context, session auth.Session, owner auth.UserID) error

	// Drives calls take for one drive after the other in the order of their numbers, from the number after on (0: from
	// the start), until take returns false. The public drive is among them. ErrAccess unless the session is an admin's.
	// take must not call the store.
	Drives(ctx context.Context, session auth.Session, after DriveID, take func(DriveInfo) bool) error

	// AuditLog calls take for each record that fits the query, the oldest first, until take returns false. A user sees
	// the records of their own drive, an admin those of all, a guest ErrAccess. take must not call the store.
	AuditLog(ctx context.Context, session auth.Session, query AuditQuery, take func(*AuditRecord) bool) error

	// Close lets go of what the store holds. Drives opened from it must be closed before.
	Close() error
}

// DriveName is what a drive is called where there are many: its owner's user id, or PublicDrive.
type DriveName string

// PublicDrive is the name of the drive without an owner. It is no user's id.
const PublicDrive DriveName = "public"

// DriveInfo is a drive in a list.
type DriveInfo struct {
	ID   DriveID
	Name DriveName
}

// DriveID is the number of a drive in its store. It fits in 20 bits, so that a node of any drive has one 64-bit number in a
// mount that shows many drives.
type DriveID uint32

// MaxDriveID is the largest DriveID.
const MaxDriveID DriveID = 1<<20 - 1

// A Drive is one owner's tree.
type Drive interface {
	Names
	Attributes
	Content
	Xattrs
	Space
	Audit

	// ID is the drive's number in its store.
	ID() DriveID

	// Owner is the user and group that the drive's own files belong to, as Attr gives them. A mount shows them as the
	// user who mounted.
	Owner() (uid, gid uint32)

	// Renew has the drive go on with another session of the same user and role: what is pending is stored with it. Any other
	// session gives auth.ErrRevoked, and the drive stays as it is.
	Renew(ctx context.Context, session auth.Session) error

	// Close commits what is pending, as File.Sync does for every open file, and lets the drive go. Its files and
	// folders must not be used any more. It returns the first error that kept something from being stored; what a
	// Preserver has put aside then is not lost.
	Close(ctx context.Context) error
}

// A Preserver is what a Drive also is that keeps written bytes in memory until they are stored, and can put them aside.
type Preserver interface {
	// PendingBytes is how much is written and not yet stored.
	PendingBytes() int64

	// Preserve puts what is written and not yet stored on this machine's disk, in files that nobody but whoever runs this
	// program can read. The next Open of the drive by the same user takes it from there and stores it. What is
	// stored in the meantime after all is taken away from there.
	Preserve(ctx context.Context) error
}

// Names are the entries of folders. A missing parent or node gives ErrNotExist, a parent that is not a folder ErrNotDir, a
// name that is too long ErrNameTooLong. A node that somebody else removed or moved under the store's hands may give ErrStale. Lookup may give ErrNotExist for a parent that is not a folder: nothing is there, and
// the kernel never asks.
//
// Every Attr that Lookup, Create, Make and Link return, and every entry that ReadDir passes on with attributes and its
// callback takes, counts as one lookup of the node; Forget takes lookups back. A store that has to remember the nodes
// its user knows by number, because numbers alone do not lead to them, forgets a node whose lookups are all taken back
// and that nobody has open.
type Names interface {
	// Lookup finds a name in a folder.
	Lookup(ctx context.Context, parent Ino, name string) (Attr, error)

	// Forget takes back n lookups of a node. It does no I/O.
	Forget(ino Ino, n uint64)

	// Create makes a regular file and opens it. If the name is there already, it opens that file (ErrIsDir if it
	// is a folder, ErrLoop if it is a symbolic link), truncated with OpenTruncate, or, with OpenExclusive, gives
	// ErrExist. created says which it was.
	Create(ctx context.Context, parent Ino, name string, node NewNode, flags OpenFlags) (file File, attr Attr, created bool, err error)

	// Make makes a node that is not opened with it: a folder, a symbolic link, a special file or an empty regular
	// file, as node.Mode's type says. ErrExist if the name is there.
	Make(ctx context.Context, parent Ino, name string, node NewNode) (Attr, error)

	// Link gives a node that is not a folder (ErrPermission) one more name. ErrExist if the name is there,
	// ErrTooManyLinks at the limit.
	Link(ctx context.Context, ino, parent Ino, name string) (Attr, error)

	// Unlink removes the name of a node that is not a folder (ErrIsDir). A node without names goes when the last
	// file open on it closes.
	Unlink(ctx context.Context, parent Ino, name string) error

	// Rmdir removes an empty folder; ErrNotEmpty, ErrNotDir.
	Rmdir(ctx context.Context, parent Ino, name string) error

	// Rename moves a name, as renameat2(2) does, at once and whole. What the new name stood for goes as with
	// Unlink or Rmdir. ErrInvalid if a folder would come to be inside itself; ErrExist with RenameNoReplace.
	Rename(ctx context.Context, op Rename) error

	// Readlink returns the target of a symbolic link, as it was given; ErrInvalid if the node is none.
	Readlink(ctx context.Context, ino Ino) (string, error)

	// OpenDir opens a folder for listing.
	OpenDir(ctx context.Context, ino Ino) (Dir, error)
}

// A Dir is a folder opened for listing. Its methods are not called by two goroutines at once.
type Dir interface {
	// Read calls take for one entry after the other, from the position after on (0: from the start), until take
	// returns false or the folder ends. "." and ".." are among the entries. An entry that is neither added nor
	// removed while a listing goes on is passed exactly once. Reading from 0 sees the folder as it is now.
	//
	// With attributes, Entry.Attr is complete where it can be had at no further cost, and Entry.Complete says so;
	// otherwise Attr has just Ino and the type in Mode. "." and ".." are never complete.
	// take must not call the drive. It does not keep the Entry.
	Read(ctx context.Context, after uint64, attributes bool, take func(*Entry) bool) error

	// Sync makes the names in the folder durable, as fsync(2) of a folder does.
	Sync(ctx context.Context) error

	Close() error
}

// An Entry is a name in a folder.
type Entry struct {
	Name     string
	Attr     Attr
	Complete bool   // Attr is whole
	Position uint64 // where to go on after this entry; never 0; at most 1<<63-1
}

// Attributes are what stat(2) tells of a node.
type Attributes interface {
	// Attr returns the attributes of a node, with what was written and is not yet stored.
	Attr(ctx context.Context, ino Ino) (Attr, error)

	// SetAttr changes some attributes at once and returns all. A size beyond the limit gives ErrTooLarge; a size
	// for a folder ErrIsDir, for anything else that is not a regular file ErrInvalid. What is cut off reads as
	// zero if the file grows again.
	SetAttr(ctx context.Context, ino Ino, change AttrChange) (Attr, error)
}

// Content is what regular files hold.
type Content interface {
	// Open opens a regular file; ErrIsDir, or ErrInvalid for another type. It sees everything that had been closed
	// or synced before, by any mount.
	Open(ctx context.Context, ino Ino, flags OpenFlags) (File, error)

	// CopyRange copies n bytes between two files of this drive (they may be one) without passing them through the
	// caller, as copy_file_range(2): it returns how many were copied, fewer at the end of src. ErrInvalid if the
	// ranges overlap in one file; ErrNotSupported where the caller should copy by reading and writing.
	CopyRange(ctx context.Context, src File, srcOff int64, dst File, dstOff, n int64) (int64, error)
}

// A File is an open regular file. All files open on one node see each other's writes at once. Which operations its flags
// allow is checked by the kernel, not here.
type File interface {
	// ReadAt fills p from the byte at off, and moves the time of access if that is due (AtimeDue). It returns fewer bytes only at the end of the file: 0 at or past it, and
	// no error. Holes read as zero. p is the caller's again when it returns.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)

	// WriteAt writes p at off; the file grows as needed and what is skipped becomes a hole. p is the caller's again
	// when it returns. Data may be stored later: until Sync or Flush returns nil it may be lost, but never silently:
	// an error in storing it is returned by a later WriteAt, Sync or Flush of every file open on the node then.
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)

	// Sync returns once all that was written to the node, and its attributes and name, are durable (fsync(2)).
	Sync(ctx context.Context) error

	// Flush stores what was written or made through this file, as close(2) does: it is called at each close of a
	// descriptor. A store in a database commits, as Sync does; one in folders has given the bytes to the kernel before, and
	// waits for the disk no more than the file system below.
	Flush(ctx context.Context) error

	// Allocate is fallocate(2): it reserves (AllocateKeepSize or not), zeroes or punches the range.
	Allocate(ctx context.Context, mode AllocateMode, off, n int64) error

	// Seek finds the next data or hole at or after off, as lseek(2). ErrNoData (ENXIO) at or past the end, and for
	// data where only a hole is left.
	Seek(ctx context.Context, off int64, whence SeekWhence) (int64, error)

	// Close lets the file go. Data that no Flush has stored is stored in the background.
	Close() error
}

// Backed is what a File also is when a plain file on this machine holds its bytes one to one: the kernel may then read and
// write that file itself (FUSE passthrough), or have data spliced from it. What WriteAt has written is in it, and Flush has nothing to store.
type Backed interface {
	// Descriptor is the open file. It stays valid until the File is closed and must not be closed by the caller.
	Descriptor() int
}

// Xattrs are extended attributes, xattr(7). A name is at most 255 bytes, a value at most 64 KiB (ErrTooBig).
type Xattrs interface {
	// GetXattr returns a value that the caller may keep; ErrNoXattr.
	GetXattr(ctx context.Context, ino Ino, name string) ([]byte, error)
	// SetXattr sets a value. XattrCreate: ErrExist if it is there; XattrReplace: ErrNoXattr if not.
	SetXattr(ctx context.Context, ino Ino, name string, value []byte, mode XattrMode) error
	// ListXattr returns the names in no particular order.
	ListXattr(ctx context.Context, ino Ino) ([]string, error)
	// RemoveXattr removes one; ErrNoXattr.
	RemoveXattr(ctx context.Context, ino Ino, name string) error
}

// Space is what df(1) shows.
type Space interface {
	// Usage tells how full the drive is. It answers at once, from memory where the backend is slow or away; the
	// figures may be some seconds old.
	Usage(ctx context.Context) (Usage, error)
}

// Usage is how much of a drive is used and free.
type Usage struct {
	TotalBytes, FreeBytes int64
	TotalFiles, FreeFiles int64 // nodes
}
