package fusefs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// errBadHandle is a handle that is not open, or not on the node that the request names.
var errBadHandle = errors.New("no such open handle")

// errnos is what a program is told for each error that a drive gives. The first match counts: a session that has ended is the
// reason, whatever else it made fail.
var errnos = []struct {
	err   error
	errno unix.Errno
}{
	{auth.ErrExpired, unix.EKEYEXPIRED},
	{auth.ErrRevoked, unix.EKEYREVOKED},
	{auth.ErrBanned, unix.EKEYREVOKED},
	{auth.ErrInvalid, unix.EKEYREVOKED},

	{blobstore.ErrStale, unix.ESTALE}, // before what it may wrap: see endNode and Create

	{blobstore.ErrNotExist, unix.ENOENT},
	{blobstore.ErrExist, unix.EEXIST},
	{blobstore.ErrNotDir, unix.ENOTDIR},
	{blobstore.ErrIsDir, unix.EISDIR},
	{blobstore.ErrNotEmpty, unix.ENOTEMPTY},
	{blobstore.ErrInvalid, unix.EINVAL},
	{blobstore.ErrLoop, unix.ELOOP},
	{blobstore.ErrNameTooLong, unix.ENAMETOOLONG},
	{blobstore.ErrTooLarge, unix.EFBIG},
	{blobstore.ErrTooBig, unix.E2BIG},
	{blobstore.ErrTooManyLinks, unix.EMLINK},
	{blobstore.ErrNoXattr, unix.ENODATA},
	{blobstore.ErrNoData, unix.ENXIO},
	{blobstore.ErrPermission, unix.EPERM},
	{blobstore.ErrAccess, unix.EACCES},
	{blobstore.ErrReadOnly, unix.EROFS},
	{blobstore.ErrNoSpace, unix.ENOSPC},
	{blobstore.ErrQuota, unix.EDQUOT},
	{blobstore.ErrCrossDevice, unix.EXDEV},
	{blobstore.ErrBusy, unix.EBUSY},
	{blobstore.ErrTextBusy, unix.ETXTBSY},
	{blobstore.ErrLocked, unix.EAGAIN},
	{blobstore.ErrDeadlock, unix.EDEADLK},
	{blobstore.ErrNotSupported, unix.EOPNOTSUPP},
	{blobstore.ErrUnavailable, unix.EIO},

	{errBadHandle, unix.EBADF},
	{errTooSmall, unix.ERANGE},
	{errInoTooLarge, unix.EOVERFLOW},

	{context.DeadlineExceeded, unix.ETIMEDOUT},
	{context.Canceled, unix.EINTR},
}

// errnoOf is the errno of an error; 0 for nil and EIO for one that is not in the table.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	return unix.EIO
}

// isFault says whether an errno is a failure of the store, the session or the deadline, and not just an answer.
func isFault(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.ETIMEDOUT, unix.EOVERFLOW, unix.ENOSPC, unix.EDQUOT, unix.EKEYEXPIRED, unix.EKEYREVOKED:
		return true
	}
	return false
}
