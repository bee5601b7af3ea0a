package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
	"mediafs/blobstore/memstore"
)

var admin = auth.Session{User: "root", Role: auth.RoleAdmin}

// manyDrives are all drives of a store in memory, as an admin sees them. It knows which are open.
type manyDrives struct {
	store *memstore.Store
	shown Shown // UID, GID and Keep of each

	mu      sync.Mutex
	open    map[blobstore.DriveName]int // guarded by mu, as the rest
	opened  int
	wrap    func(blobstore.DriveName, blobstore.Drive) blobstore.Drive
	refused map[blobstore.DriveName]error // what opening gives instead
	closed  chan blobstore.DriveName
}

// newManyDrives has a drive for each user, and the public one.
func newManyDrives(t testing.TB, users ...auth.UserID) *manyDrives {
	t.Helper()
	m := &manyDrives{
		store:   memstore.New(),
		open:    make(map[blobstore.DriveName]int),
		refused: make(map[blobstore.DriveName]error),
		closed:  make(chan blobstore.DriveName, 1000),
	}
	for _, user := range users {
		_, err := m.store.Open(t.Context(), auth.Session{User: user, Role: auth.RoleUser})
		must(t, err)
	}
	return m
}

func (m *manyDrives) List(ctx context.Context, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	return m.store.Drives(ctx, admin, after, take)
}

func (m *manyDrives) Open(ctx context.Context, name blobstore.DriveName) (Shown, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refused[name]; err != nil {
		return Shown{}, err
	}
	if m.open[name] != 0 {
		return Shown{}, fmt.Errorf("drive %s is opened though it is open", name)
	}
	d, err := m.store.OpenDrive(ctx, admin, name)
	if err != nil {
		return Shown{}, err
	}
	if m.wrap != nil {
		d = m.wrap(name, d)
	}
	m.open[name]++
	m.opened++
	shown := m.shown
	shown.ID, shown.Drive = d.ID(), &countedDrive{Drive: d, name: name, of: m}
	return shown, nil
}

// openNow says which drives are open, in order.
func (m *manyDrives) openNow() []blobstore.DriveName {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []blobstore.DriveName
	for name, n := range m.open {
		if n != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (m *manyDrives) timesOpened() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened
}

// drive opens a drive beside the mount.
func (m *manyDrives) drive(t testing.TB, name blobstore.DriveName) blobstore.Drive {
	t.Helper()
	d, err := m.store.OpenDrive(t.Context(), admin, name)
	must(t, err)
	return d
}

// countedDrive tells manyDrives when it is closed.
type countedDrive struct {
	blobstore.Drive
	name     blobstore.DriveName
	of       *manyDrives
	pending  atomic.Int64
	gone     atomic.Bool // it is closed
	closeErr error
}

func (d *countedDrive) Attr(ctx context.Context, ino blobstore.Ino) (blobstore.Attr, error) {
	if d.gone.Load() {
		return blobstore.Attr{}, fmt.Errorf("drive %s is used after it was closed", d.name)
	}
	return d.Drive.Attr(ctx, ino)
}

func (d *countedDrive) PendingBytes() int64            { return d.pending.Load() }
func (d *countedDrive) Preserve(context.Context) error { return nil }
func (d *countedDrive) Close(ctx context.Context) error {
	d.gone.Store(true)
	d.of.mu.Lock()
	d.of.open[d.name]--
	d.of.mu.Unlock()
	err := errors.Join(d.closeErr, d.Drive.Close(ctx))
	d.of.closed <- d.name
	return err
}

// mountMany mounts many drives until the test ends, and returns the folder they are in.
func mountMany(t testing.TB, shown Drives, o Options) (*Mount, string) {
	t.Helper()
	needFuse(t)
	o.Mountpoint = filepath.Join(openTempDir(t), "mnt")
	must(t, os.Mkdir(o.Mountpoint, 0o755))
	o.FSName = "mediafs:all"
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := NewMany(shown, o)
	must(t, err)
	t.Cleanup(func() {
		unmount(t, m)
		must(t, m.CloseDrives(context.Background()))
	})
	return m, o.Mountpoint
}

func TestManyDrivesAreFoldersOfOneMount(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	m, dir := mountMany(t, many, Options{})

	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if !e.IsDir() {
			t.Errorf("%s is listed as %v, want a folder", e.Name(), e.Type())
		}
	}
	if want := []string{"alice", "bob", "public"}; !slices.Equal(names, want) {
		t.Errorf("got folders %q, want %q", names, want)
	}
	if opened := many.timesOpened(); opened != 0 {
		t.Errorf("listing opened %d drives, want none", opened)
	}

	// The inos in two drives are the same. What is open of one must not be taken for the other's.
	var files []*os.File
	for _, user := range []string{"alice", "bob"} {
		must(t, os.Mkdir(filepath.Join(dir, user, "sub"), 0o755))
		f, err := os.Create(filepath.Join(dir, user, "sub", "file"))
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	for i, content := range []string{"of alice", "what bob wrote"} {
		_, err := files[i].WriteString(content)
		must(t, err)
	}
	var numbers []uint64
	for i, content := range []string{"of alice", "what bob wrote"} {
		got, err := os.ReadFile(files[i].Name())
		must(t, err)
		if string(got) != content {
			t.Errorf("%s: got %q, want %q", files[i].Name(), got, content)
		}
		var st unix.Stat_t
		must(t, unix.Fstat(int(files[i].Fd()), &st))
		numbers = append(numbers, st.Ino)
	}
	if numbers[0]&maxIno != numbers[1]&maxIno || numbers[0] == numbers[1] {
		t.Errorf("got node numbers %x, want the same ino of two drives", numbers)
	}
	if d := many.drive(t, "bob"); attrOf(t, d, "sub").Ino == 0 {
		t.Error("what was made in bob's folder is not on bob's drive")
	}

	for _, f := range files {
		must(t, f.Close())
	}
	unmount(t, m)
	must(t, m.CloseDrives(t.Context()))
	if open := many.openNow(); len(open) != 0 {
		t.Errorf("after CloseDrives %q are open", open)
	}
}

func TestTheRootOfManyCannotBeChanged(t *testing.T) {
	needRoot(t)
	many := newManyDrives(t, "alice", "bob")
	_, dir := mountMany(t, many, Options{AllowOther: true})
	alice, bob := filepath.Join(dir, "alice"), filepath.Join(dir, "bob")
	file := filepath.Join(alice, "file")
	must(t, os.WriteFile(file, []byte("kept"), 0o644))
	must(t, os.WriteFile(filepath.Join(bob, "file"), []byte("kept, too"), 0o644))

	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	if st.Mode != unix.S_IFDIR|0o700 || st.Uid != uint32(os.Geteuid()) {
		t.Errorf("the root has mode %o of user %d, want a folder 0700 of %d", st.Mode, st.Uid, os.Geteuid())
	}
	var space unix.Statfs_t
	must(t, unix.Statfs(dir, &space))
	if space.Blocks != 0 || space.Files != 0 {
		t.Errorf("statfs: got %+v, want zeros", space)
	}
	_, getxattr := unix.Getxattr(dir, "user.x", nil)
	_, missing := os.Stat(filepath.Join(dir, "carol"))
	said, shell := shellAs(nobody, "/", "ls "+dir)
	if shell == nil || !strings.Contains(said, "Permission denied") {
		t.Errorf("another user lists the root: got %q, %v", said, shell)
	}
	_, create := os.Create(filepath.Join(dir, "new"))
	for what, c := range map[string]struct{ got, want error }{
		"mkdir":                   {os.Mkdir(filepath.Join(dir, "new"), 0o755), unix.EPERM},
		"create":                  {create, unix.EPERM},
		"symlink":                 {os.Symlink("x", filepath.Join(dir, "new")), unix.EPERM},
		"rmdir":                   {unix.Rmdir(alice), unix.EPERM},
		"unlink":                  {unix.Unlink(alice), unix.EISDIR},
		"rename of a drive":       {unix.Rename(alice, filepath.Join(dir, "new")), unix.EPERM},
		"rename over another":     {unix.Rename(alice, bob), unix.EPERM},
		"chmod":                   {os.Chmod(dir, 0o777), unix.EPERM},
		"setxattr":                {unix.Setxattr(dir, "user.x", nil, 0), unix.EPERM},
		"getxattr":                {getxattr, unix.ENODATA},
		"a drive that is not":     {missing, unix.ENOENT},
		"rename between drives":   {unix.Rename(file, filepath.Join(bob, "new")), unix.EXDEV},
		"exchange between drives": {unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, filepath.Join(bob, "file"), unix.RENAME_EXCHANGE), unix.EXDEV},
		"rename out of a drive":   {unix.Rename(file, filepath.Join(dir, "new")), unix.EXDEV},
		"link between drives":     {unix.Link(file, filepath.Join(bob, "new")), unix.EXDEV},
		"link out of a drive":     {unix.Link(file, filepath.Join(dir, "new")), unix.EXDEV},
		"rename in a drive":       {unix.Rename(file, file), nil},
	} {
		wantErr(t, what, c.got, c.want)
	}
	for path, want := range map[string]string{file: "kept", filepath.Join(bob, "file"): "kept, too"} {
		if got, err := os.ReadFile(path); string(got) != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

// copy_file_range(2) between drives reads and writes, though the two files have the same ino.
func TestCopyingBetweenDrivesPassesThroughTheKernel(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	_, dir := mountMany(t, many, Options{})
	must(t, os.WriteFile(filepath.Join(dir, "alice", "file"), []byte("content"), 0o644))
	from, err := os.Open(filepath.Join(dir, "alice", "file"))
	must(t, err)
	defer from.Close()
	to, err := os.Create(filepath.Join(dir, "bob", "file"))
	must(t, err)
	defer to.Close()
	n, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 7, 0)
	if n != 7 || err != nil {
		t.Errorf("got %d, %v, want 7 bytes copied", n, err)
	}
	got, err := os.ReadFile(to.Name())
	must(t, err)
	if string(got) != "content" {
		t.Errorf("got %q, want %q", got, "content")
	}
}

func TestOwnersOfManyDrivesAreShownAsTheirUsers(t *testing.T) {
	needRoot(t)
	many := newManyDrives(t, "alice", "bob")
	many.shown = Shown{UID: 1234, GID: 2345, Keep: true}
	_, dir := mountMany(t, many, Options{RootMode: 0o755, AllowOther: true})
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "alice"), &st))
	if st.Uid != 1234 || st.Gid != 2345 {
		t.Errorf("a drive's folder is of %d:%d, want 1234:2345", st.Uid, st.Gid)
	}
	if said, err := shellAs(1234, filepath.Join(dir, "alice"), "echo mine > file"); err != nil {
		t.Fatalf("the user works in the drive: %v: %s", err, said)
	}
	if attr := attrOf(t, many.drive(t, "alice"), "file"); attr.UID != 0 {
		t.Errorf("the drive has the file as that of %d, want its owner 0", attr.UID)
	}
}

func TestTheFolderOfADriveAmongManyIsItsUsersAloneWhateverItsMode(t *testing.T) {
	mounted, dir := mountMany(t, newManyDrives(t, "anna"), Options{})
	anna := filepath.Join(dir, "anna")
	must(t, os.Chmod(anna, 0o755))
	for range 2 { // as the kernel knows it, and as it is looked up anew
		info, err := os.Stat(anna)
		must(t, err)
		if got := info.Mode().Perm(); got != 0o700 {
			t.Errorf("got mode %o, want 700", got)
		}
		mounted.server.EntryNotify(uint64(blobstore.RootIno), "anna")
	}
}

func TestIdleDrivesAreClosedAndOpenedAgain(t *testing.T) {
	var users []auth.UserID
	for i := range 2 * DefaultOpenDrives {
		users = append(users, auth.UserID(fmt.Sprintf("user%03d", i)))
	}
	many := newManyDrives(t, users...)
	_, dir := mountMany(t, many, Options{})
	path := func(user auth.UserID) string { return filepath.Join(dir, string(user), "file") }

	must(t, os.WriteFile(path(users[0]), []byte("open"), 0o644))
	open, err := os.Open(path(users[0])) // in use
	must(t, err)
	defer open.Close()
	must(t, os.Mkdir(filepath.Join(dir, string(users[1]), "cwd"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, string(users[1]), "cwd", "file"), []byte("found"), 0o644))
	folder, err := unix.Open(filepath.Join(dir, string(users[1]), "cwd"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // no handle
	must(t, err)
	defer unix.Close(folder)
	for _, user := range users[2:] {
		must(t, os.WriteFile(path(user), []byte(user), 0o644))
	}
	for closed := 0; closed < len(users)-DefaultOpenDrives; closed++ {
		if name := soon(t, "the closing of an idle drive", many.closed); name == blobstore.DriveName(users[0]) {
			t.Error("a drive with an open file was closed")
		}
	}
	if n := len(many.openNow()); n != DefaultOpenDrives {
		t.Errorf("%d drives are open, want %d", n, DefaultOpenDrives)
	}
	for _, name := range many.openNow() {
		if name == blobstore.DriveName(users[1]) {
			t.Error("the drive that was used longest ago is still open")
		}
	}

	// A node of a drive that was closed is known by its number.
	fd, err := unix.Openat(folder, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	got := make([]byte, 16)
	n, err := unix.Read(fd, got)
	must(t, errors.Join(err, unix.Close(fd)))
	if string(got[:n]) != "found" {
		t.Errorf("got %q, want %q", got[:n], "found")
	}
	for _, user := range users[2:] {
		if got, err := os.ReadFile(path(user)); string(got) != string(user) || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, user)
		}
	}
	if got, err := os.ReadFile(open.Name()); string(got) != "open" || err != nil {
		t.Errorf("the file that stayed open: got %q, %v", got, err)
	}
}

// folderDrives are the drives of a store of folders.
type folderDrives struct{ store *dirstore.Store }

func (folderDrives) List(context.Context, blobstore.DriveID, func(blobstore.DriveInfo) bool) error {
	return nil
}

func (f folderDrives) Open(ctx context.Context, name blobstore.DriveName) (Shown, error) {
	d, err := f.store.Open(ctx, auth.Session{User: auth.UserID(name), Role: auth.RoleUser})
	if err != nil {
		return Shown{}, err
	}
	return Shown{ID: d.ID(), Drive: d}, nil
}

// A store of folders knows nodes by the way that led to them. What it does not know any more it must not take for missing.
func TestNodesThatAReopenedDriveDoesNotKnowAreStale(t *testing.T) {
	root := t.TempDir()
	must(t, dirstore.Init(root))
	store, err := dirstore.Open(root, discard)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	m, dir := mountMany(t, folderDrives{store}, Options{})
	sub := filepath.Join(dir, "first", "sub")
	must(t, os.Mkdir(sub, 0o755))
	must(t, os.WriteFile(filepath.Join(sub, "file"), []byte("found"), 0o644))
	folder, err := unix.Open(sub, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(folder)
	first := m.fs.many.holdOpenedNamed("first")
	first.release()
	for i := range 2 * DefaultOpenDrives {
		_, err := os.Stat(filepath.Join(dir, fmt.Sprintf("user%03d", i)))
		must(t, err)
	}
	var idled chan struct{}
	for begun := time.Now(); idled == nil && time.Since(begun) < patience; {
		m.fs.many.mu.RLock()
		idled = m.fs.many.idled[first.number]
		m.fs.many.mu.RUnlock()
	}
	soon(t, "the closing of the first drive", idled)

	_, err = unix.Openat(folder, "another file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	wantErr(t, "a name in a folder that the drive does not know", err, unix.ESTALE)
	got, err := os.ReadFile(filepath.Join(sub, "file"))
	if string(got) != "found" || err != nil {
		t.Errorf("by its path: got %q, %v, want the file", got, err)
	}
	_, err = unix.Openat(folder, "another file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	wantErr(t, "a name that is not there", err, unix.ENOENT)
}

func TestDrivesWithSomethingPendingStayOpen(t *testing.T) {
	var users []auth.UserID
	for i := range 2 * DefaultOpenDrives {
		users = append(users, auth.UserID(fmt.Sprintf("user%03d", i)))
	}
	many := newManyDrives(t, users...)
	m := newDrives(many, Options{Timeout: patience, Logger: discard}.withDefaults())
	for i, user := range users {
		d, err := m.holdNamed(t.Context(), blobstore.DriveName(user))
		must(t, err)
		if i == 0 {
			d.Drive.(*countedDrive).pending.Store(1)
		}
		d.release()
	}
	for range len(users) - DefaultOpenDrives {
		if name := soon(t, "the closing of an idle drive", many.closed); name == "user000" {
			t.Error("a drive with something pending was closed")
		}
	}
	m.stop()
	must(t, m.closeAll(t.Context()))
}

func TestDrivesInUseAreNotClosed(t *testing.T) {
	var users []auth.UserID
	for i := range DefaultOpenDrives + 20 {
		users = append(users, auth.UserID(fmt.Sprintf("user%03d", i)))
	}
	many := newManyDrives(t, users...)
	many.closed = make(chan blobstore.DriveName, 1<<20)
	m := newDrives(many, Options{Logger: discard}.withDefaults())
	var using sync.WaitGroup
	for worker := range uint64(8) {
		using.Go(func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for range 1000 {
				d, err := m.holdNamed(t.Context(), blobstore.DriveName(users[random.IntN(len(users))]))
				if err == nil {
					_, err = d.Attr(t.Context(), blobstore.RootIno)
					d.release()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	using.Wait()
	if many.timesOpened() <= len(users) {
		t.Error("no drive was closed meanwhile")
	}
	m.stop()
	must(t, m.closeAll(t.Context()))
	if open := many.openNow(); len(open) != 0 {
		t.Errorf("%q are still open", open)
	}
}

func TestADriveIsOpenedOnceForAllWhoWaitForIt(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	m := newDrives(many, Options{}.withDefaults())
	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			d, err := m.holdNamed(t.Context(), "alice")
			if err != nil {
				t.Error(err)
				return
			}
			d.release()
		})
	}
	waiting.Wait()
	if n := many.timesOpened(); n != 1 {
		t.Errorf("the drive was opened %d times", n)
	}
	m.stop()
	must(t, m.closeAll(t.Context()))
}

func TestErrorsInClosingDrivesAreReported(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	m := newDrives(many, Options{}.withDefaults())
	for _, name := range []blobstore.DriveName{"alice", "bob"} {
		d, err := m.holdNamed(t.Context(), name)
		must(t, err)
		if name == "bob" {
			d.Drive.(*countedDrive).closeErr = blobstore.ErrUnavailable
		}
		d.release()
	}
	m.stop()
	err := m.closeAll(t.Context())
	wantErr(t, "closing", err, blobstore.ErrUnavailable)
	if err == nil || !strings.Contains(err.Error(), `"bob"`) || strings.Contains(err.Error(), "alice") {
		t.Errorf("got %v, want bob's drive named, and no other", err)
	}
	if open := many.openNow(); len(open) != 0 {
		t.Errorf("%q are still open", open)
	}
}

func TestAnEndedSessionKeepsADriveClosed(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	many.refused["alice"] = auth.ErrExpired
	_, dir := mountMany(t, many, Options{})
	_, err := os.ReadDir(filepath.Join(dir, "alice"))
	wantErr(t, "alice's drive", err, unix.EKEYEXPIRED)
	_, err = os.ReadDir(filepath.Join(dir, "bob"))
	wantErr(t, "bob's drive", err, nil)
}

// largeInos is a drive of which the nodes, but for the root, have numbers beyond 44 bits.
type largeInos struct{ *counting }

const tooLarge = 1 << 50

func (d largeInos) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	attr, err := d.counting.Lookup(ctx, parent, name)
	attr.Ino |= tooLarge
	return attr, err
}

func (d largeInos) Make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (blobstore.Attr, error) {
	attr, err := d.counting.Make(ctx, parent, name, node)
	attr.Ino |= tooLarge
	return attr, err
}

func (d largeInos) Create(
	ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags,
) (blobstore.File, blobstore.Attr, bool, error) {
	f, attr, created, err := d.counting.Create(ctx, parent, name, node, flags)
	attr.Ino |= tooLarge
	return f, attr, created, err
}

func (d largeInos) OpenDir(ctx context.Context, ino blobstore.Ino) (blobstore.Dir, error) {
	dir, err := d.counting.OpenDir(ctx, ino)
	return largeInosDir{dir}, err
}

func (d largeInos) Forget(ino blobstore.Ino, n uint64) { d.counting.Forget(ino&^tooLarge, n) }

type largeInosDir struct{ blobstore.Dir }

func (d largeInosDir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) error {
	return d.Dir.Read(ctx, after, attributes, func(e *blobstore.Entry) bool {
		large := *e
		large.Attr.Ino |= tooLarge
		return take(&large)
	})
}

func TestNumbersTooLargeForManyDrivesAreNoOtherNodes(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	bob := newCounting(nil)
	many.wrap = func(name blobstore.DriveName, d blobstore.Drive) blobstore.Drive {
		if name != "bob" {
			return d
		}
		bob.Drive = d
		return largeInos{bob}
	}
	var log safeBuffer
	_, dir := mountMany(t, many, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, os.WriteFile(filepath.Join(dir, "alice", "file"), []byte("of alice"), 0o644))
	file := filepath.Join(dir, "bob", "file")
	wantErr(t, "create", os.WriteFile(file, nil, 0o644), unix.EOVERFLOW)
	wantErr(t, "mkdir", os.Mkdir(file+" 2", 0o755), unix.EOVERFLOW)
	_, err := os.Stat(file)
	wantErr(t, "stat", err, unix.EOVERFLOW)
	list, err := os.Open(filepath.Join(dir, "bob"))
	must(t, err)
	defer list.Close()
	names, err := list.Readdirnames(0)
	must(t, err)
	if len(names) != 2 {
		t.Errorf("got names %q, want the two", names)
	}
	if !strings.Contains(log.String(), errInoTooLarge.Error()) {
		t.Errorf("the log does not say what is wrong: %s", log.String())
	}
	if out := bob.out(); out != 0 || bob.wrong != nil {
		t.Errorf("%d nodes that the kernel does not know count as looked up; %v", out, bob.wrong)
	}
}

// safeBuffer is a strings.Builder for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestMadeUpNodesOfManyDrivesLeadNowhere(t *testing.T) {
	many := newManyDrives(t, "alice", "bob")
	o := Options{Timeout: patience, Logger: discard}.withDefaults()
	fs := newFilesystemOfMany(many, o)
	defer func() {
		fs.stop()
		must(t, fs.many.closeAll(context.Background()))
	}()
	stale := fuse.Status(unix.ESTALE)
	getattr := func(node uint64) fuse.Status {
		return fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node}}, new(fuse.AttrOut))
	}
	id := func(number blobstore.DriveID, ino uint64) uint64 { return uint64(number)<<inoBits | ino }
	alice, bob := many.drive(t, "alice").ID(), many.drive(t, "bob").ID()
	for _, node := range []uint64{0, 2, maxIno, id(alice, 1), id(bob, 1), id(blobstore.MaxDriveID, 1), 1<<64 - 1} {
		if got := getattr(node); got != stale {
			t.Errorf("getattr of node %x before any drive was shown: got %v, want %v", node, got, stale)
		}
		fs.Forget(node, 1<<40)
	}
	if n := many.timesOpened(); n != 0 {
		t.Errorf("made-up numbers opened %d drives", n)
	}
	var entry fuse.EntryOut
	if status := fs.Lookup(nil, &fuse.InHeader{NodeId: 1}, "alice", &entry); status != fuse.OK || entry.NodeId != id(alice, 1) {
		t.Fatalf("lookup of alice: got %v, node %x", status, entry.NodeId)
	}
	var opened fuse.OpenOut
	if status := fs.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id(alice, 1)}}, &opened); status != fuse.OK {
		t.Fatal(status)
	}
	for _, c := range []struct {
		what string
		got  fuse.Status
		want fuse.Status
	}{
		{"another drive that nobody was shown", getattr(id(bob, 1)), stale},
		{"a node that is not", getattr(id(alice, 77)), stale},
		{"no node", getattr(id(alice, 0)), stale},
		{"the handle of another drive's folder", fs.ReadDir(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: 1}, Fh: opened.Fh}, fuse.NewDirEntryList(make([]byte, 512), 0)), fuse.EBADF},
		{"a name in no drive", fs.Lookup(nil, &fuse.InHeader{NodeId: 1}, "../alice", &entry), fuse.ENOENT},
		{"the root's parent", fs.Lookup(nil, &fuse.InHeader{NodeId: 1}, "..", &entry), fuse.ENOENT},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}
