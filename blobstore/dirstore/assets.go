package dirstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// assetID is a UUID of version 8 (RFC 9562): what a hash makes of the file's drive, inode number and time of birth. So nothing has to keep it, every
// program finds the same, and it stays until the inode goes.
func assetID(id fileID) (asset blobstore.AssetID) {
	what := binary.BigEndian.AppendUint64([]byte("mediafs asset\x00"), id.number)
	what = binary.BigEndian.AppendUint64(what, uint64(id.birth))
	sum := sha256.Sum256(append(what, id.drive...))
	copy(asset[:], sum[:])
	asset[6] = asset[6]&0x0f | 0x80
	asset[8] = asset[8]&0x3f | 0x80
	return asset
}

// jobOf is the job of a file or folder; "" if it has none, none that is one, or can't be asked.
func jobOf(fd *descriptor) string {
	job, err := readSized(func(buf []byte) (int, error) { return unix.Getxattr(fd.path(), blobstore.XattrJob, buf) })
	if err != nil || blobstore.CheckJob(string(job)) != nil {
		return ""
	}
	return string(job)
}

// inheritJob gives what was just made, which st describes, the job of its folder. Where the file system has no attributes, there are no jobs.
func inheritJob(folder, made *descriptor, st *unix.Statx_t) error {
	job := jobOf(folder)
	if job == "" {
		return nil
	}
	err := unix.Setxattr(made.path(), blobstore.XattrJob, []byte(job), 0)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil
	case err != nil:
		return err
	}
	return statx(made.fd, "", st)
}

// facts are what is known of a regular file, by the names of their attributes. A file system without times of birth gives the numbers of its files to others too,
// so there is nothing to know of one.
func (d *Drive) facts(ctx context.Context, ino blobstore.Ino) (map[string]string, error) {
	if d.store.bare {
		return nil, nil
	}
	n, err := d.hold(ctx, ino)
	if err != nil {
		return nil, err
	}
	defer d.drop(n)
	var st unix.Statx_t
	if err := d.stat(n, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || n.id.birth == 0 {
		return nil, nil
	}
	id := fileID{d.name, n.id}
	facts := map[string]string{
		blobstore.XattrID:      assetID(id).String(),
		blobstore.XattrCreated: time.Unix(0, n.id.birth).UTC().Format(time.RFC3339Nano),
	}
	if count, at, err := d.store.index.accesses(ctx, d.name, ino, uint64(n.id.birth)); err == nil { // else the index has said what is wrong with it
		facts[blobstore.XattrAccessCount] = strconv.FormatInt(count, 10)
		if count > 0 {
			facts[blobstore.XattrLastAccessed] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	known, _, err := d.store.catalog.knownOf(ctx, id, int64(st.Size), nanoseconds(st.Mtime))
	if err != nil {
		d.store.log.Debug("what the content of a file says is not known", "drive", d.name, "ino", ino, "error", err)
		return facts, nil
	}
	if known.Type != "" {
		facts[blobstore.XattrType] = known.Type
	}
	if known.SHA256 != nil {
		facts[blobstore.XattrSHA256] = hex.EncodeToString(known.SHA256)
	}
	if known.Width > 0 {
		facts[blobstore.XattrWidth], facts[blobstore.XattrHeight] = strconv.Itoa(known.Width), strconv.Itoa(known.Height)
	}
	if !known.Taken.IsZero() {
		facts[blobstore.XattrTaken] = known.Taken.UTC().Format(time.RFC3339Nano)
	}
	return facts, nil
}
