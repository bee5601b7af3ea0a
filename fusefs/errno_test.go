package fusefs

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

var errnoCases = map[string]struct {
	err  error
	want unix.Errno
}{
	"blobstore.ErrNotExist":                            {blobstore.ErrNotExist, unix.ENOENT},
	"blobstore.ErrExist":                               {blobstore.ErrExist, unix.EEXIST},
	"blobstore.ErrNotDir":                              {blobstore.ErrNotDir, unix.ENOTDIR},
	"blobstore.ErrIsDir":                               {blobstore.ErrIsDir, unix.EISDIR},
	"blobstore.ErrNotEmpty":                            {blobstore.ErrNotEmpty, unix.ENOTEMPTY},
	"blobstore.ErrInvalid":                             {blobstore.ErrInvalid, unix.EINVAL},
	"blobstore.ErrLoop":                                {blobstore.ErrLoop, unix.ELOOP},
	"blobstore.ErrNameTooLong":                         {blobstore.ErrNameTooLong, unix.ENAMETOOLONG},
	"blobstore.ErrTooLarge":                            {blobstore.ErrTooLarge, unix.EFBIG},
	"blobstore.ErrTooBig":                              {blobstore.ErrTooBig, unix.E2BIG},
	"blobstore.ErrTooManyLinks":                        {blobstore.ErrTooManyLinks, unix.EMLINK},
	"blobstore.ErrNoXattr":                             {blobstore.ErrNoXattr, unix.ENODATA},
	"blobstore.ErrNoData":                              {blobstore.ErrNoData, unix.ENXIO},
	"blobstore.ErrPermission":                          {blobstore.ErrPermission, unix.EPERM},
	"blobstore.ErrAccess":                              {blobstore.ErrAccess, unix.EACCES},
	"blobstore.ErrReadOnly":                            {blobstore.ErrReadOnly, unix.EROFS},
	"blobstore.ErrNoSpace":                             {blobstore.ErrNoSpace, unix.ENOSPC},
	"blobstore.ErrQuota":                               {blobstore.ErrQuota, unix.EDQUOT},
	"blobstore.ErrCrossDevice":                         {blobstore.ErrCrossDevice, unix.EXDEV},
	"blobstore.ErrBusy":                                {blobstore.ErrBusy, unix.EBUSY},
	"blobstore.ErrTextBusy":                            {blobstore.ErrTextBusy, unix.ETXTBSY},
	"blobstore.ErrStale":                               {blobstore.ErrStale, unix.ESTALE},
	"blobstore.ErrLocked":                              {blobstore.ErrLocked, unix.EAGAIN},
	"blobstore.ErrDeadlock":                            {blobstore.ErrDeadlock, unix.EDEADLK},
	"blobstore.ErrNotSupported":                        {blobstore.ErrNotSupported, unix.EOPNOTSUPP},
	"blobstore.ErrUnavailable":                         {blobstore.ErrUnavailable, unix.EIO},
	"auth.ErrInvalid":                                  {auth.ErrInvalid, unix.EKEYREVOKED},
	"auth.ErrExpired":                                  {auth.ErrExpired, unix.EKEYEXPIRED},
	"auth.ErrRevoked":                                  {auth.ErrRevoked, unix.EKEYREVOKED},
	"auth.ErrBanned":                                   {auth.ErrBanned, unix.EKEYREVOKED},
	"context.Canceled":                                 {context.Canceled, unix.EINTR},
	"context.DeadlineExceeded":                         {context.DeadlineExceeded, unix.ETIMEDOUT},
	"an unknown error":                                 {errors.New("disk on fire"), unix.EIO},
	"an errno of the backend":                          {unix.ENOENT, unix.EIO},
	"no error":                                         {nil, 0},
	"a session that ended while something else failed": {errors.Join(blobstore.ErrUnavailable, auth.ErrExpired), unix.EKEYEXPIRED},
}

func TestErrnoOfEachError(t *testing.T) {
	for what, c := range errnoCases {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("%s: got %s, want %s", what, unix.ErrnoName(got), unix.ErrnoName(c.want))
		}
		if c.err == nil {
			continue
		}
		if got := errnoOf(fmt.Errorf("read node 7: %w", c.err)); got != c.want {
			t.Errorf("%s, wrapped: got %s, want %s", what, unix.ErrnoName(got), unix.ErrnoName(c.want))
		}
	}
}

// What these say is about names and users, before there is a drive, or about closing one, when nobody asks any more.
var notOfDrives = []string{"auth.ErrUserID", "auth.ErrUserExists", "auth.ErrNoUser", "blobstore.ErrKept"}

func TestErrnoTableHasEverySentinel(t *testing.T) {
	for _, file := range []string{"../blobstore/errors.go", "../auth/auth.go", "../auth/account.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, err)
		found := 0
		for name, object := range parsed.Scope.Objects {
			if object.Kind != ast.Var || !strings.HasPrefix(name, "Err") {
				continue
			}
			found++
			name = parsed.Name.Name + "." + name
			if _, ok := errnoCases[name]; !ok && !strings.Contains(strings.Join(notOfDrives, " "), name) {
				t.Errorf("%s has no errno", name)
			}
		}
		if found == 0 {
			t.Errorf("%s: no sentinels found", file)
		}
	}
}
