// Package dirstore keeps drives as folders on disk: the drive of a user is ROOT/{user-id}, and what is in it is what is on the
// drive, byte for byte and name for name. Other programs may read and write there at any time.
//
//	ROOT/                  owned by whoever runs the web application
//	    .mediafs/          the store's own: accounts.json, audit/, index.sqlite, assets.sqlite, quota.sqlite, drives in the making
//	    public/            the public drive
//	    {user-id}/         a user's drive
//
// # Nothing leads out
//
// Every system call names one entry of a folder that is held by a descriptor, and refuses to follow links or to cross mount
// points; no path of more than one element is ever built, but for /proc/self/fd. A folder's descriptor is trusted for a
// second (see trust) and then checked to be still where it was, so a folder that another program moves out of the drive is
// out of reach when that second ends.
//
// # How a node is found
//
// The number of a node is that of the inode behind it, and its generation is the inode's time of birth, for file systems
// give the number of a removed file to the next one. Neither leads to the inode without privileges, so the drive remembers
// under which names (folder and entry) it has seen each node that is in use. A name is a hint: what is found under it is
// compared with the number and the birth, and if it is another node, or none, the answer is ErrStale, upon which the kernel
// looks the path up again. A node that was unlinked while open is reached by the descriptor of the open file.
//
// Descriptors of folders are kept for the most recently used ones; of files only while they are open, so that what
// another program removes is really gone.
//
// # Contexts
//
// Whether a context has ended is looked at before an operation begins, and between the parts of a long one. A system call
// that has begun runs to its end: Linux has no way to take one back from a disk that does not answer.
//
// # Locks
//
// From the outside in: Drive.renames, Drive.moves, node.entries, Drive.mu, folders.mu. The last two are never held over a system call.
package dirstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

const (
	ownFolder  = ".mediafs" // no user id starts with a dot
	publicName = string(blobstore.PublicDrive)
)

// ErrNotInitialised is a root that Init has not been run on.
var ErrNotInitialised = errors.New("not a store yet")

// AccountsPath is the file that a store's accounts are kept in.
func AccountsPath(root string) string { return filepath.Join(root, ownFolder, "accounts.json") }

// Init makes root a store. What is in it stays as it is; doing it again changes nothing.
func Init(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make a store of %s: %w", root, err)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, root, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("make a store of %s: the folder can't be written to: %w", root, err)
	}
	own := filepath.Join(root, ownFolder)
	err := os.Mkdir(own, 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = checkOwnFolder(own)
	}
	if err == nil {
		err = makePublic(root)
	}
	if err != nil {
		return fmt.Errorf("make a store of %s: %w", root, err)
	}
	return nil
}

// makePublic makes the folder of the public drive, owned like the root: the web application may put things there too.
func makePublic(root string) error {
	path := filepath.Join(root, publicName)
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return checkOwnFolder(path)
	}
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return err
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

func checkOwnFolder(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is in the way: it is not a folder", path)
	}
	return nil
}

// Store keeps drives in the folders of one root.
type Store struct {
	log     *slog.Logger
	root    *descriptor
	folders *folders
	audit   *auditLog
	index   *index
	quotas  *quotas
	catalog *catalog
	trust   time.Duration // see the constant
	bare    bool          // it is a folder of this machine alone (OpenFolder): there is no index and no catalogue beside it
	closed  atomic.Bool

	mu  sync.Mutex
	ids map[blobstore.DriveName]blobstore.DriveID // guarded by mu
}

var _ blobstore.Store = (*Store)(nil)

// Open opens the store in root. ErrNotInitialised if Init has not been run there.
func Open(root string, logger *slog.Logger) (*Store, error) {
	fd, err := openat(unix.AT_FDCWD, root, unix.O_PATH|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, notInitialised(root)
	case err != nil:
		return nil, fmt.Errorf("open the store %s: %w", root, err)
	}
	var st unix.Statx_t
	err = statx(fd, ownFolder, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		err = notInitialised(root)
	case err != nil:
		err = fmt.Errorf("open the store %s: %w", root, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		err = fmt.Errorf("open the store %s: %s in it is not a folder", root, ownFolder)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return newStore(fd, root, logger), nil
}

// newStore is the store whose root is open at fd.
func newStore(fd int, root string, logger *slog.Logger) *Store {
	s := &Store{
		log:     logger,
		root:    newDescriptor(fd),
		folders: newFolders(),
		audit:   newAuditLog(),
		trust:   trust,
		ids:     make(map[blobstore.DriveName]blobstore.DriveID),
	}
	s.index = newIndex(s, root)
	s.quotas = &quotas{path: filepath.Join(root, ownFolder, quotaFile)}
	s.catalog = newCatalog(s, root)
	return s
}

func notInitialised(root string) error {
	return fmt.Errorf("open the store %s: %w: run `mediafs init --store %s`", root, ErrNotInitialised, root)
}

// Open opens the drive of the session's user and makes its folder the first time; for a guest the public drive, which is there
// since Init. auth.ErrUserID for an id that can't name a folder here; "public" is such a one, for the public drive has that name.
func (s *Store) Open(ctx context.Context, session auth.Session) (blobstore.Drive, error) {
	if err := checkSession(ctx, session); err != nil {
		return nil, fmt.Errorf("dirstore: open drive: %w", err)
	}
	if session.Role == auth.RoleGuest {
		drive, err := s.openNamed(blobstore.PublicDrive, session, false)
		if errors.Is(err, blobstore.ErrNotExist) {
			return nil, fmt.Errorf("%w: run `mediafs init` on the store", err)
		}
		if err != nil {
			return nil, err
		}
		return blobstore.ReadOnly(drive), nil
	}
	drive, err := s.openNamed(blobstore.DriveName(session.User), session, true)
	if err != nil {
		return nil, err
	}
	return drive, nil
}

// OpenDrive opens a drive that is there, for an admin.
func (s *Store) OpenDrive(ctx context.Context, session auth.Session, name blobstore.DriveName) (blobstore.Drive, error) {
	if err := checkSession(ctx, session); err != nil {
		return nil, fmt.Errorf("dirstore: open drive: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		if name == blobstore.DriveName(session.User) || session.Role == auth.RoleGuest && name == blobstore.PublicDrive {
			return s.Open(ctx, session)
		}
		return nil, fmt.Errorf("dirstore: open drive %q: %w", name, blobstore.ErrNotExist)
	}
	if auth.UserID(name).Check() != nil {
		return nil, fmt.Errorf("dirstore: open drive %q: %w", name, blobstore.ErrNotExist)
	}
	drive, err := s.openNamed(name, session, false)
	if err != nil {
		return nil, err
	}
	return drive, nil
}

// MakeDrive makes the folder of a user's drive.
func (s *Store) MakeDrive(ctx context.Context, session auth.Session, owner auth.UserID) error {
	if err := checkSession(ctx, session); err != nil {
		return fmt.Errorf("dirstore: make drive: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		return fmt.Errorf("dirstore: make drive: %w", blobstore.ErrAccess)
	}
	if owner == auth.UserID(publicName) || owner.Check() != nil {
		return fmt.Errorf("dirstore: make drive: %w", auth.ErrUserID)
	}
	if !s.root.acquire() {
		return fmt.Errorf("dirstore: make drive: the store is closed: %w", blobstore.ErrUnavailable)
	}
	defer s.root.release()
	if err := s.makeFolder(string(owner)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("dirstore: make the drive of %s: %w", owner, sentinel(err))
	}
	return nil
}

// Drives lists the folders of the root that can be drives. What else is there, links to folders included, is passed over.
func (s *Store) Drives(ctx context.Context, session auth.Session, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	if err := checkSession(ctx, session); err != nil {
		return fmt.Errorf("dirstore: list drives: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		return fmt.Errorf("dirstore: list drives: %w", blobstore.ErrAccess)
	}
	entries, err := s.folderNames()
	if err != nil {
		return fmt.Errorf("dirstore: list drives: %w", sentinel(err))
	}
	drives := make([]blobstore.DriveInfo, 0, len(entries))
	for _, name := range entries {
		id, err := s.driveID(name)
		if err != nil {
			return err
		}
		if id > after {
			drives = append(drives, blobstore.DriveInfo{ID: id, Name: name})
		}
	}
	slices.SortFunc(drives, func(a, b blobstore.DriveInfo) int { return cmp.Compare(a.ID, b.ID) })
	for _, info := range drives {
		if !take(info) {
			break
		}
	}
	return nil
}

// folderNames are the names of the folders in the root that can be drives.
func (s *Store) folderNames() ([]blobstore.DriveName, error) {
	var names []blobstore.DriveName
	err := s.eachInRoot(func(name string, isDrive bool) {
		if isDrive {
			names = append(names, blobstore.DriveName(name))
		}
	})
	slices.Sort(names)
	return names, err
}

// Strays are the names in the root that belong to no drive and are not the store's own: files, links, and folders that no user can be called
// like. They are for an admin to know.
func (s *Store) Strays(ctx context.Context, session auth.Session) ([]string, error) {
	if err := checkSession(ctx, session); err != nil {
		return nil, fmt.Errorf("dirstore: look for strays: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		return nil, fmt.Errorf("dirstore: look for strays: %w", blobstore.ErrAccess)
	}
	var names []string
	err := s.eachInRoot(func(name string, isDrive bool) {
		if !isDrive && name != ownFolder {
			names = append(names, name)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("dirstore: look for strays: %w", sentinel(err))
	}
	slices.Sort(names)
	return names, nil
}

// eachInRoot calls take for each name in the root, and says whether it is a folder that can be a drive.
func (s *Store) eachInRoot(take func(name string, isDrive bool)) error {
	if !s.root.acquire() {
		return fmt.Errorf("the store is closed: %w", blobstore.ErrUnavailable)
	}
	defer s.root.release()
	fd, err := openat(s.root.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // an O_PATH descriptor can't be listed
	if err != nil {
		return err
	}
	root := os.NewFile(uintptr(fd), "root")
	defer root.Close()
	entries, err := root.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var st unix.Statx_t
		isDrive := auth.UserID(e.Name()).Check() == nil && statx(s.root.fd, e.Name(), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		take(e.Name(), isDrive)
	}
	return nil
}

// checkSession gives the error of a session that may do nothing here.
func checkSession(ctx context.Context, session auth.Session) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case session.Check(time.Now()) != nil:
		return session.Check(time.Now())
	case session.Role == auth.RoleGuest:
		return nil
	case session.User == auth.UserID(publicName):
		return fmt.Errorf("%w (%q is the public drive)", auth.ErrUserID, publicName)
	}
	return session.User.Check()
}

// openNamed opens the drive of a name, whose folder is made if it may be.
func (s *Store) openNamed(name blobstore.DriveName, session auth.Session, mayMake bool) (*Drive, error) {
	if !s.root.acquire() {
		return nil, fmt.Errorf("dirstore: open drive: the store is closed: %w", blobstore.ErrUnavailable)
	}
	drive, err := s.openDrive(string(name), mayMake)
	if err != nil {
		s.root.release()
		return nil, fmt.Errorf("dirstore: open the drive of %s: %w", name, sentinel(err))
	}
	drive.session.Store(&session)
	drive.startRecording(session.User)
	return drive, nil
}

// driveID numbers the drives in the order they come.
func (s *Store) driveID(name blobstore.DriveName) (blobstore.DriveID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.ids[name]; ok {
		return id, nil
	}
	id := blobstore.DriveID(len(s.ids) + 1)
	if id > blobstore.MaxDriveID {
		return 0, fmt.Errorf("dirstore: open drive: %d drives are the most: %w", blobstore.MaxDriveID, blobstore.ErrUnavailable)
	}
	s.ids[name] = id
	return id, nil
}

// openDrive opens a drive's folder. The drive takes over the reference to the root that the caller holds.
func (s *Store) openDrive(name string, mayMake bool) (*Drive, error) {
	fd, err := s.openFolder(name)
	if errors.Is(err, unix.ENOENT) && mayMake {
		if err = s.makeFolder(name); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		fd, err = s.openFolder(name)
	}
	if err != nil {
		return nil, err
	}
	top := newDescriptor(fd)
	defer top.release()
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return nil, err
	}
	id, err := s.driveID(blobstore.DriveName(name))
	if err != nil {
		return nil, err
	}
	return newDrive(s, name, id, top, &st), nil
}

// openFolder opens a drive's folder, which may be a mount point but no symbolic link.
func (s *Store) openFolder(name string) (int, error) {
	return openPath(s.root.fd, name, unix.O_DIRECTORY, mayMount)
}

// makeFolder makes the folder of a drive, owned like the root: the web application must be able to write there, whoever
// makes it. Where that takes a change of owner it is made aside, so that nobody finds it with the wrong one.
func (s *Store) makeFolder(name string) error {
	var root unix.Statx_t
	if err := statx(s.root.fd, "", &root); err != nil {
		return err
	}
	const mode = 0o700
	if os.Geteuid() != 0 || root.Uid == 0 && root.Gid == 0 {
		return unix.Mkdirat(s.root.fd, name, mode)
	}
	own, err := openPath(s.root.fd, ownFolder, unix.O_DIRECTORY, beneath)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	aside := "drive-" + rand.Text()
	if err := unix.Mkdirat(own, aside, mode); err != nil {
		return err
	}
	fd, _, err := openMade(own, aside, unix.S_IFDIR)
	if err == nil {
		err = unix.Fchownat(fd, "", int(root.Uid), int(root.Gid), unix.AT_EMPTY_PATH)
		_ = unix.Close(fd)
	}
	if err == nil {
		err = unix.Renameat2(own, aside, s.root.fd, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = unix.Unlinkat(own, aside, unix.AT_REMOVEDIR)
	}
	return err
}

// Close lets the root go. Closing the store once more does nothing.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return errors.Join(s.index.close(), s.catalog.close(), s.quotas.close(), s.audit.close(), s.root.close())
}
