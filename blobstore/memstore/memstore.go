// Package memstore keeps drives in memory. It is the model of package blobstore: what a drive has to do, said in the fewest
// words, so that the stores that keep anything can be compared with it. Each drive has one mutex, which every method holds
// from its first line to its last; nothing is done in the background and nothing is lost but by ending the program.
package memstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/locktable"
)

// What Usage shows a drive to have room for. Nothing holds a drive to it.
const (
	totalBytes = 1 << 50
	totalFiles = 1 << 32
)

var _ blobstore.Store = (*Store)(nil)

// A Store holds drives for as long as the program runs, whether or not it is closed.
type Store struct {
	mu     sync.Mutex // guards drives
	drives []*drive   // by number, from 1 on; the first is the public one
}

// New makes a store with the public drive alone.
func New() *Store {
	return &Store{drives: []*drive{newDrive(1, blobstore.PublicDrive)}}
}

// Open implements blobstore.Store. Every session of one user has the same drive.
func (s *Store) Open(ctx context.Context, session auth.Session) (blobstore.Drive, error) {
	if err := check(ctx, session); err != nil {
		return nil, fmt.Errorf("open drive: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if session.Role == auth.RoleGuest {
		return blobstore.ReadOnly(s.drives[0].attach(session)), nil
	}
	if d := s.find(blobstore.DriveName(session.User)); d != nil {
		return d.attach(session), nil
	}
	id := blobstore.DriveID(len(s.drives) + 1)
	if id > blobstore.MaxDriveID {
		return nil, fmt.Errorf("open drive %q: all numbers are taken: %w", session.User, blobstore.ErrNoSpace)
	}
	d := newDrive(id, blobstore.DriveName(session.User))
	s.drives = append(s.drives, d)
	return d.attach(session), nil
}

// OpenDrive implements blobstore.Store.
func (s *Store) OpenDrive(ctx context.Context, session auth.Session, name blobstore.DriveName) (blobstore.Drive, error) {
	if err := check(ctx, session); err != nil {
		return nil, fmt.Errorf("open drive %q: %w", name, err)
	}
	if session.Role != auth.RoleAdmin {
		if session.Role == auth.RoleUser && name == blobstore.DriveName(session.User) || session.Role == auth.RoleGuest && name == blobstore.PublicDrive {
			return s.Open(ctx, session)
		}
		return nil, fmt.Errorf("open drive %q: %w", name, blobstore.ErrNotExist)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.find(name); d != nil {
		return d.attach(session), nil
	}
	return nil, fmt.Errorf("open drive %q: %w", name, blobstore.ErrNotExist)
}

// Drives implements blobstore.Store.
func (s *Store) Drives(ctx context.Context, session auth.Session, after blobstore.DriveID, take func(blobstore.DriveInfo) bool) error {
	if err := check(ctx, session); err != nil {
		return fmt.Errorf("list drives: %w", err)
	}
	if session.Role != auth.RoleAdmin {
		return fmt.Errorf("list drives: %w", blobstore.ErrAccess)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.drives {
		if d.id > after && !take(blobstore.DriveInfo{ID: d.id, Name: d.name}) {
			break
		}
	}
	return nil
}

// AuditLog implements blobstore.Store.
func (s *Store) AuditLog(ctx context.Context, session auth.Session, query blobstore.AuditQuery, take func(*blobstore.AuditRecord) bool) error {
	if err := check(ctx, session); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if session.Role == auth.RoleGuest {
		return fmt.Errorf("audit log: %w", blobstore.ErrAccess)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var fit []blobstore.AuditRecord
	for _, d := range s.drives {
		if session.Role == auth.RoleAdmin || d.name == blobstore.DriveName(session.User) {
			fit = append(fit, d.recorded(&query)...)
		}
	}
	slices.SortStableFunc(fit, func(a, b blobstore.AuditRecord) int { return a.Time.Compare(b.Time) })
	for i := range fit {
		if !take(&fit[i]) {
			break
		}
	}
	return nil
}

func (d *drive) recorded(query *blobstore.AuditQuery) []blobstore.AuditRecord {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.audit), func(r blobstore.AuditRecord) bool { return !query.Fits(&r) })
}

// check gives the error of a session that may do nothing, or not under this name.
func check(ctx context.Context, session auth.Session) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := session.Check(time.Now()); err != nil {
		return err
	}
	if session.Role == auth.RoleGuest {
		return nil
	}
	if session.User == auth.UserID(blobstore.PublicDrive) {
		return auth.ErrUserID
	}
	return session.User.Check()
}

// find returns the drive of a name, or nil. With mu.
func (s *Store) find(name blobstore.DriveName) *drive {
	for _, d := range s.drives {
		if d.name == name {
			return d
		}
	}
	return nil
}

// Close implements blobstore.Store. The drives stay, and the store may be used on.
func (s *Store) Close() error { return nil }

type drive struct {
	id   blobstore.DriveID
	name blobstore.DriveName

	mu       sync.Mutex // guards what follows, and every node, folder and content reached from it
	nodes    map[blobstore.Ino]*node
	ino      blobstore.Ino // the last number that was given to a node
	position uint64        // the last position that was given to an entry
	audit    []blobstore.AuditRecord

	locks    locktable.Table
	attached atomic.Uint64 // counts attachments
}

// A node lives while it has a name or is open.
type node struct {
	attr    blobstore.Attr    // Size and Allocated of a regular file are those of content
	target  string            // of a symbolic link
	xattrs  map[string][]byte // nil until one is set
	content content           // of a regular file
	folder  folder            // of a folder
	open    int               // files and listings open on it

	id         blobstore.AssetID
	bornNs     int64
	accesses   int // how often it was opened by those who recorded it
	accessedNs int64
}

func newDrive(id blobstore.DriveID, name blobstore.DriveName) *drive {
	d := &drive{id: id, name: name, nodes: make(map[blobstore.Ino]*node), position: dotDotPosition}
	root := d.newNode(blobstore.NewNode{Mode: unix.S_IFDIR | 0o755}, nil)
	root.folder.parent = root
	return d
}

func (d *drive) ID() blobstore.DriveID { return d.id }

func (d *drive) Owner() (uid, gid uint32) { return 0, 0 }

// Usage counts what is held, so it costs as much as the drive is large.
func (d *drive) Usage(ctx context.Context) (u blobstore.Usage, err error) {
	err = d.do(ctx, "usage", blobstore.RootIno, func() error {
		u = blobstore.Usage{TotalBytes: totalBytes, FreeBytes: totalBytes, TotalFiles: totalFiles}
		for _, n := range d.nodes {
			u.FreeBytes -= n.stat().Allocated
		}
		u.FreeBytes = max(u.FreeBytes, 0)
		u.FreeFiles = totalFiles - int64(len(d.nodes))
		return nil
	})
	return u, err
}

// do runs one operation alone, unless the context has ended, and says of an error what it happened to.
func (d *drive) do(ctx context.Context, op string, ino blobstore.Ino, f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil {
		err = f()
	}
	if err != nil {
		return fmt.Errorf("%s node %d: %w", op, ino, err)
	}
	return nil
}

func (d *drive) node(ino blobstore.Ino) (*node, error) {
	if n := d.nodes[ino]; n != nil {
		return n, nil
	}
	return nil, blobstore.ErrNotExist
}

// newNode makes a node that has no name yet. The root alone has no parent.
func (d *drive) newNode(what blobstore.NewNode, parent *node) *node {
	d.ino++
	now := now()
	n := &node{attr: blobstore.Attr{
		Ino: d.ino, Mode: what.Mode & (unix.S_IFMT | 0o7777), UID: what.UID, GID: what.GID,
		AtimeNs: now, MtimeNs: now, CtimeNs: now,
	}, id: blobstore.NewAssetID(), bornNs: now}
	if parent != nil && parent.attr.Mode&unix.S_ISGID != 0 {
		n.attr.GID = parent.attr.GID
		if n.attr.IsDir() {
			n.attr.Mode |= unix.S_ISGID
		}
	}
	switch n.attr.Type() {
	case unix.S_IFDIR:
		n.attr.Nlink = 2 // its name in the parent, or the root's "..", and its own "."
		n.attr.Size, n.attr.Allocated = blobstore.BlockSize, blobstore.BlockSize
		n.folder.names = make(map[string]*entry)
	case unix.S_IFLNK:
		n.attr.Mode |= 0o777 // a link has no permissions of its own, symlink(7)
		n.attr.Size = int64(len(what.Target))
		n.target = what.Target
	case unix.S_IFCHR, unix.S_IFBLK:
		n.attr.Rdev = what.Rdev
	}
	if job, ok := parent.job(); ok && n.mayHaveJob() {
		n.xattrs = map[string][]byte{blobstore.XattrJob: job}
	}
	d.nodes[n.attr.Ino] = n
	return n
}

// job is what is made in a folder takes as its own.
func (n *node) job() (job []byte, ok bool) {
	if n == nil {
		return nil, false
	}
	job, ok = n.xattrs[blobstore.XattrJob]
	return job, ok
}

// drop lets a node go that nothing leads to any more.
func (d *drive) drop(n *node) {
	if n.attr.Nlink == 0 && n.open == 0 {
		delete(d.nodes, n.attr.Ino)
	}
}

func now() int64 { return time.Now().UnixNano() }
