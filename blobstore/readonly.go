package blobstore

import "context"

// ReadOnly is a drive that refuses every change with ErrReadOnly, whoever asks. Its files are those of the drive below.
func ReadOnly(drive Drive) Drive { return readOnly{drive} }

type readOnly struct{ Drive }

func (readOnly) Create(context.Context, Ino, string, NewNode, OpenFlags) (File, Attr, bool, error) {
	return nil, Attr{}, false, ErrReadOnly
}
func (readOnly) Make(context.Context, Ino, string, NewNode) (Attr, error)       { return Attr{}, ErrReadOnly }
func (readOnly) Link(context.Context, Ino, Ino, string) (Attr, error)           { return Attr{}, ErrReadOnly }
func (readOnly) Unlink(context.Context, Ino, string) error                      { return ErrReadOnly }
func (readOnly) Rmdir(context.Context, Ino, string) error                       { return ErrReadOnly }
func (readOnly) Rename(context.Context, Rename) error                           { return ErrReadOnly }
func (readOnly) SetAttr(context.Context, Ino, AttrChange) (Attr, error)         { return Attr{}, ErrReadOnly }
func (readOnly) SetXattr(context.Context, Ino, string, []byte, XattrMode) error { return ErrReadOnly }
func (readOnly) RemoveXattr(context.Context, Ino, string) error                 { return ErrReadOnly }

func (d readOnly) Open(ctx context.Context, ino Ino, flags OpenFlags) (File, error) {
	if flags&^(OpenRead|OpenNoAtime) != 0 {
		return nil, ErrReadOnly
	}
	f, err := d.Drive.Open(ctx, ino, flags|OpenNoAtime)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

func (readOnly) CopyRange(context.Context, File, int64, File, int64, int64) (int64, error) {
	return 0, ErrReadOnly
}

// readOnlyFile is an open file that can't be written, whatever it was opened for.
type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt(context.Context, []byte, int64) (int, error)        { return 0, ErrReadOnly }
func (readOnlyFile) Allocate(context.Context, AllocateMode, int64, int64) error { return ErrReadOnly }
