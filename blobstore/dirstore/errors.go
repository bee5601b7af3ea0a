package dirstore

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// sentinels says what each errno of the file system below means, errno(3).
var sentinels = map[unix.Errno]error{
	unix.ENOENT:       blobstore.ErrNotExist,
	unix.EEXIST:       blobstore.ErrExist,
	unix.ENOTDIR:      blobstore.ErrNotDir,
	unix.EISDIR:       blobstore.ErrIsDir,
	unix.ENOTEMPTY:    blobstore.ErrNotEmpty,
	unix.EINVAL:       blobstore.ErrInvalid,
	unix.EBADF:        blobstore.ErrInvalid, // the file was opened for something else
	unix.ELOOP:        blobstore.ErrLoop,
	unix.ENAMETOOLONG: blobstore.ErrNameTooLong,
	unix.EFBIG:        blobstore.ErrTooLarge,
	unix.EOVERFLOW:    blobstore.ErrTooLarge,
	unix.E2BIG:        blobstore.ErrTooBig,
	unix.ERANGE:       blobstore.ErrTooBig, // the name of an attribute, or the list of them: xattr(7)
	unix.EMLINK:       blobstore.ErrTooManyLinks,
	unix.ENODATA:      blobstore.ErrNoXattr,
	unix.ENXIO:        blobstore.ErrNoData,
	unix.EPERM:        blobstore.ErrPermission,
	unix.EACCES:       blobstore.ErrAccess,
	unix.EROFS:        blobstore.ErrReadOnly,
	unix.ENOSPC:       blobstore.ErrNoSpace,
	unix.EDQUOT:       blobstore.ErrQuota,
	unix.EXDEV:        blobstore.ErrCrossDevice,
	unix.EBUSY:        blobstore.ErrBusy,
	unix.ETXTBSY:      blobstore.ErrTextBusy,
	unix.ESTALE:       blobstore.ErrStale,
	unix.EOPNOTSUPP:   blobstore.ErrNotSupported,
	unix.ENOSYS:       blobstore.ErrNotSupported,
	unix.EIO:          blobstore.ErrUnavailable,
	unix.EMFILE:       blobstore.ErrUnavailable,
	unix.ENFILE:       blobstore.ErrUnavailable,
	unix.ENOMEM:       blobstore.ErrUnavailable,
}

// sentinel gives an errno the meaning it has for a drive. Other errors, and errnos without one, stay as they are.
func sentinel(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	meaning, ok := sentinels[errno]
	switch {
	case !ok:
		return err
	case errors.Is(meaning, blobstore.ErrUnavailable): // which does not say what to do about it
		return fmt.Errorf("%w: %w", meaning, errno)
	}
	return meaning
}

// wrap says in an error which operation failed on which node.
func wrap(op string, ino blobstore.Ino, err *error) {
	if *err != nil {
		*err = fmt.Errorf("dirstore: %s %d: %w", op, ino, sentinel(*err))
	}
}
