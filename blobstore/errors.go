package blobstore

import "errors"

// What a store answers when it can't do as asked. Package fusefs has the one table that gives each its errno.
var (
	ErrNotExist     = errors.New("no such file or folder")           // ENOENT
	ErrExist        = errors.New("exists already")                   // EEXIST
	ErrNotDir       = errors.New("not a folder")                     // ENOTDIR
	ErrIsDir        = errors.New("is a folder")                      // EISDIR
	ErrNotEmpty     = errors.New("folder is not empty")              // ENOTEMPTY
	ErrInvalid      = errors.New("invalid argument")                 // EINVAL
	ErrLoop         = errors.New("is a symbolic link")               // ELOOP
	ErrNameTooLong  = errors.New("name is too long")                 // ENAMETOOLONG
	ErrTooLarge     = errors.New("file would be too large")          // EFBIG
	ErrTooBig       = errors.New("extended attribute is too big")    // E2BIG
	ErrTooManyLinks = errors.New("node has too many names")          // EMLINK
	ErrNoXattr      = errors.New("no such extended attribute")       // ENODATA
	ErrNoData       = errors.New("no data or hole past this offset") // ENXIO
	ErrPermission   = errors.New("not permitted")                    // EPERM
	ErrAccess       = errors.New("access denied")                    // EACCES
	ErrReadOnly     = errors.New("read-only")                        // EROFS
	ErrNoSpace      = errors.New("no space left")                    // ENOSPC
	ErrQuota        = errors.New("quota exceeded")                   // EDQUOT
	ErrCrossDevice  = errors.New("not on the same drive")            // EXDEV
	ErrBusy         = errors.New("busy")                             // EBUSY
	ErrTextBusy     = errors.New("program is being executed")        // ETXTBSY
	ErrStale        = errors.New("node is gone")                     // ESTALE
	ErrLocked       = errors.New("locked by another")                // EAGAIN
	ErrDeadlock     = errors.New("waiting would never end")          // EDEADLK
	ErrNotSupported = errors.New("not supported")                    // EOPNOTSUPP
	ErrUnavailable  = errors.New("the store can't be reached")       // EIO
)

// ErrKept is of a Drive.Close that could not store everything and has kept on this machine's disk all that it could not: nothing is lost
// (see Preserver).
var ErrKept = errors.New("what was written is kept on this machine")
