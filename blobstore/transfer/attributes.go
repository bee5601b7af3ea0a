package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// owner is who a node belongs to at the target: whom a mount of the source would show, as a mount of the target would store it. Both show their owner as
// whoever mounts, and the other way round.
func (r *run) owner(a *blobstore.Attr, s *Source) (uid, gid uint32) {
	fromUID, fromGID := s.Drive.Owner()
	toUID, toGID := r.to.Owner()
	uid = swap(swap(a.UID, fromUID, r.options.UID), toUID, r.options.UID)
	gid = swap(swap(a.GID, fromGID, r.options.GID), toGID, r.options.GID)
	return uid, gid
}

func swap(id, a, b uint32) uint32 {
	switch id {
	case a:
		return b
	case b:
		return a
	}
	return id
}

// newNode is a node like one of the source, whose other attributes setAttr gives it.
func (r *run) newNode(a *blobstore.Attr, s *Source) blobstore.NewNode {
	node := blobstore.NewNode{Mode: a.Mode &^ (unix.S_ISUID | unix.S_ISGID), Rdev: a.Rdev}
	node.UID, node.GID = r.owner(a, s)
	return node
}

// ownNode is the same with the owner of the drive: on folders only root can give nodes to others.
func (r *run) ownNode(node blobstore.NewNode) blobstore.NewNode {
	node.UID, node.GID = r.to.Owner()
	return node
}

// make makes a node that is no regular file.
func (r *run) make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (blobstore.Attr, error) {
	made, err := r.to.Make(ctx, parent, name, node)
	if errors.Is(err, blobstore.ErrPermission) {
		made, err = r.to.Make(ctx, parent, name, r.ownNode(node))
	}
	return made, err
}

// setAttr gives a node of the target, as it was made or found, the owner, the mode and the times of one of the source. ErrNotKept if it can't have that
// owner. One that it has already is not set: that would take away security.capability. With its mode a file is no longer in the making, and a drive sets that last,
// or all at once.
func (r *run) setAttr(ctx context.Context, have, a *blobstore.Attr, s *Source) error {
	change := blobstore.AttrChange{Set: blobstore.SetAtime | blobstore.SetMtime, AtimeNs: a.AtimeNs, MtimeNs: a.MtimeNs}
	if change.UID, change.GID = r.owner(a, s); change.UID != have.UID || change.GID != have.GID {
		change.Set |= blobstore.SetUID | blobstore.SetGID
	}
	if a.Type() != unix.S_IFLNK {
		change.Set |= blobstore.SetMode
		change.Mode = a.Mode & 0o7777
	}
	var lost error
	_, err := r.to.SetAttr(ctx, have.Ino, change)
	if errors.Is(err, blobstore.ErrPermission) && change.Set.Has(blobstore.SetUID) {
		lost = fmt.Errorf("%w: only root can give it to its owner here", ErrNotKept)
		change.Set &^= blobstore.SetUID | blobstore.SetGID
		change.Mode &^= unix.S_ISUID | unix.S_ISGID // of another than it was made for
		_, err = r.to.SetAttr(ctx, have.Ino, change)
	}
	if err != nil {
		return err
	}
	return lost
}

const (
	aclXattrs    = "system.posix_acl_" // acl(5): drives have none
	selinuxXattr = "security.selinux"  // a matter of each machine
)

// xattrNames lists the extended attributes of a node of the source, without those that the target tells of its own copy.
func xattrNames(ctx context.Context, s *Source, ino blobstore.Ino) ([]string, error) {
	names, err := s.Drive.ListXattr(ctx, ino)
	if errors.Is(err, blobstore.ErrNotSupported) {
		return nil, nil
	}
	return slices.DeleteFunc(names, isFact), err
}

// isFact says whether an attribute is one that drives tell of their files, and nobody sets.
func isFact(name string) bool {
	return strings.HasPrefix(name, blobstore.XattrFacts) && name != blobstore.XattrJob
}

// copyXattrs copies extended attributes, and sets the job of what is a file if the options name one. lost says which the target does not take.
func (r *run) copyXattrs(ctx context.Context, s *Source, names []string, src, dst blobstore.Ino, isFile bool) (lost, err error) {
	for _, name := range names {
		switch {
		case name == selinuxXattr, name == blobstore.XattrJob && isFile && r.options.Job != "":
			continue
		case strings.HasPrefix(name, aclXattrs):
			lost = fmt.Errorf("%w: drives have no access lists (%s)", ErrNotKept, name)
			continue
		}
		value, err := s.Drive.GetXattr(ctx, src, name)
		if errors.Is(err, blobstore.ErrNoXattr) {
			continue // removed since it was listed
		}
		if err != nil {
			return lost, err
		}
		err = r.to.SetXattr(ctx, dst, name, value, blobstore.XattrSet)
		for _, refusal := range []error{blobstore.ErrNotSupported, blobstore.ErrPermission, blobstore.ErrAccess, blobstore.ErrTooBig, blobstore.ErrNoSpace, blobstore.ErrInvalid} {
			if errors.Is(err, refusal) {
				lost, err = fmt.Errorf("%w: its attribute %q: %w", ErrNotKept, name, refusal), nil
				break
			}
		}
		if err != nil {
			return lost, err
		}
	}
	if isFile && r.options.Job != "" {
		err := r.to.SetXattr(ctx, dst, blobstore.XattrJob, []byte(r.options.Job), blobstore.XattrSet)
		if errors.Is(err, blobstore.ErrPermission) || errors.Is(err, blobstore.ErrNotSupported) {
			return lost, ErrNoJobs
		}
		if err != nil {
			return lost, err
		}
	}
	return lost, nil
}
