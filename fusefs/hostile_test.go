package fusefs

import (
	"fmt"
	"log/slog"
	"math"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// The kernel sends none of this. It must not matter: nothing may panic, and nothing may be found that is not there.
func TestMadeUpNodesAndHandlesLeadNowhere(t *testing.T) {
	drive := newDrive(t)
	file, attr, _, err := drive.Create(t.Context(), blobstore.RootIno, "file", blobstore.NewNode{Mode: unix.S_IFREG}, blobstore.OpenRead)
	must(t, err)
	must(t, file.Close())
	fs := newFilesystem(drive, Options{Timeout: patience, Logger: discard})
	var opened fuse.OpenOut
	if status := fs.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: uint64(attr.Ino)}}, &opened); status != fuse.OK {
		t.Fatal(status)
	}
	var listed fuse.OpenOut
	if status := fs.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: 1}}, &listed); status != fuse.OK {
		t.Fatal(status)
	}

	type pair struct{ node, handle uint64 }
	pairs := []pair{{uint64(attr.Ino), listed.Fh}, {1, opened.Fh}}
	for _, node := range []uint64{0, uint64(attr.Ino) + 1, 1 << 44, math.MaxInt64, 1 << 63, math.MaxUint64} {
		for _, handle := range []uint64{0, opened.Fh, listed.Fh, listed.Fh + 1, math.MaxUint64} {
			pairs = append(pairs, pair{node, handle})
		}
	}
	for _, p := range pairs {
		h := fuse.InHeader{NodeId: p.node}
		data := make([]byte, 128)
		var entry fuse.EntryOut
		gone := []fuse.Status{fuse.Status(unix.ESTALE), fuse.ENOENT, fuse.ENOTDIR}
		badHandle := []fuse.Status{fuse.EBADF}
		statusOf := func(_ any, s fuse.Status) fuse.Status { return s }
		known := p.node == 1 || p.node == uint64(attr.Ino)

		for _, c := range []struct {
			what   string
			byName bool // the node alone counts, and a known one may do
			got    fuse.Status
			want   []fuse.Status
		}{
			{"getattr", true, fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: h, Flags_: fuse.FUSE_GETATTR_FH, Fh_: p.handle}, new(fuse.AttrOut)), gone},
			{"setattr", true, fs.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_MODE}}, new(fuse.AttrOut)), gone},
			{"lookup", true, fs.Lookup(nil, &h, "x", &entry), gone},
			{"open", true, fs.Open(nil, &fuse.OpenIn{InHeader: h}, new(fuse.OpenOut)), append(gone, fuse.EISDIR)},
			{"opendir", true, fs.OpenDir(nil, &fuse.OpenIn{InHeader: h}, new(fuse.OpenOut)), gone},
			{"readlink", true, statusOf(fs.Readlink(nil, &h)), append(gone, fuse.EINVAL)},
			{"getxattr", true, statusOf(fs.GetXAttr(nil, &h, "user.x", data)), append(gone, fuse.ENODATA)},
			{"listxattr", true, statusOf(fs.ListXAttr(nil, &h, data)), gone},
			{"removexattr", true, fs.RemoveXAttr(nil, &h, "user.x"), append(gone, fuse.ENODATA)},
			{"unlink", true, fs.Unlink(nil, &h, "x"), gone},
			{"rmdir", true, fs.Rmdir(nil, &h, "x"), gone},
			{"rename", true, fs.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: p.node}, "x", "y"), gone},
			{"link", true, fs.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: p.node}, "x", &entry), append(gone, fuse.EPERM)},

			{"read", false, statusOf(fs.Read(nil, &fuse.ReadIn{InHeader: h, Fh: p.handle, Size: 128}, data)), badHandle},
			{"write", false, statusOf(fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: p.handle}, data)), badHandle},
			{"flush", false, fs.Flush(nil, &fuse.FlushIn{InHeader: h, Fh: p.handle}), badHandle},
			{"fsync", false, fs.Fsync(nil, &fuse.FsyncIn{InHeader: h, Fh: p.handle}), badHandle},
			{"fallocate", false, fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Fh: p.handle, Length: 1}), badHandle},
			{"lseek", false, fs.Lseek(nil, &fuse.LseekIn{InHeader: h, Fh: p.handle, Whence: unix.SEEK_DATA}, new(fuse.LseekOut)), badHandle},
			{"copy_file_range", false, statusOf(fs.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: h, FhIn: p.handle, NodeIdOut: p.node, FhOut: p.handle})), badHandle},
		} {
			ok := known && c.byName
			for _, want := range c.want {
				ok = ok || c.got == want
			}
			if !ok {
				t.Errorf("%s of node %d, handle %d: got %v, want one of %v", c.what, p.node, p.handle, c.got, c.want)
			}
		}
		fs.Forget(p.node, math.MaxUint64)
		if p.node != 1 {
			for what, got := range map[string]fuse.Status{
				"readdir":     fs.ReadDir(nil, &fuse.ReadIn{InHeader: h, Fh: p.handle}, fuse.NewDirEntryList(data, 0)),
				"readdirplus": fs.ReadDirPlus(nil, &fuse.ReadIn{InHeader: h, Fh: p.handle}, fuse.NewDirEntryList(data, 0)),
				"fsyncdir":    fs.FsyncDir(nil, &fuse.FsyncIn{InHeader: h, Fh: p.handle}),
			} {
				if got != fuse.EBADF {
					t.Errorf("%s of node %d, handle %d: got %v, want EBADF", what, p.node, p.handle, got)
				}
			}
			fs.ReleaseDir(&fuse.ReleaseIn{InHeader: h, Fh: p.handle})
			fs.Release(nil, &fuse.ReleaseIn{InHeader: h, Fh: p.handle})
		}
	}
	if got := fs.handles.files[opened.Fh]; got == nil {
		t.Error("the open file was closed by somebody who guessed its handle, but not its node")
	}
	if got := fs.handles.dirs[listed.Fh]; got == nil {
		t.Error("the open folder was closed by somebody who guessed its handle, but not its node")
	}
}

func TestOffsetsBeyondTheLimits(t *testing.T) {
	drive := newDrive(t)
	fs := newFilesystem(drive, Options{Timeout: patience, Logger: discard})
	var out fuse.CreateOut
	if status := fs.Create(nil, &fuse.CreateIn{InHeader: fuse.InHeader{NodeId: 1}, Flags: unix.O_RDWR, Mode: 0o644}, "file", &out); status != fuse.OK {
		t.Fatal(status)
	}
	h, fh := fuse.InHeader{NodeId: out.NodeId}, out.Fh
	statusOf := func(_ any, s fuse.Status) fuse.Status { return s }
	const far = math.MaxInt64 + 1
	const efbig = fuse.Status(unix.EFBIG)
	for _, c := range []struct {
		what      string
		got, want fuse.Status
	}{
		{"read at 2^63", statusOf(fs.Read(nil, &fuse.ReadIn{InHeader: h, Fh: fh, Offset: far}, make([]byte, 8))), fuse.EINVAL},
		{"write at 2^63", statusOf(fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Offset: far}, make([]byte, 8))), fuse.EINVAL},
		{"write at the end of numbers", statusOf(fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Offset: math.MaxInt64}, make([]byte, 8))), efbig},
		{"write past the largest file", statusOf(fs.Write(nil, &fuse.WriteIn{InHeader: h, Fh: fh, Offset: blobstore.MaxFileSize}, make([]byte, 8))), efbig},
		{"a size of 2^63", fs.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE, Size: far}}, new(fuse.AttrOut)), efbig},
		{"a size too large", fs.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE, Size: blobstore.MaxFileSize + 1}}, new(fuse.AttrOut)), efbig},
		{"allocate nothing", fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Fh: fh}), fuse.EINVAL},
		{"allocate at 2^63", fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Fh: fh, Offset: far, Length: 1}), fuse.EINVAL},
		{"allocate around the numbers", fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Fh: fh, Offset: math.MaxInt64, Length: math.MaxInt64}), efbig},
		{"allocate in an unknown way", fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Fh: fh, Length: 1, Mode: 1 << 20}), fuse.ENOTSUP},
		{"seek from 2^63", fs.Lseek(nil, &fuse.LseekIn{InHeader: h, Fh: fh, Offset: far, Whence: unix.SEEK_DATA}, new(fuse.LseekOut)), fuse.Status(unix.ENXIO)},
		{"seek in an unknown way", fs.Lseek(nil, &fuse.LseekIn{InHeader: h, Fh: fh, Whence: 17}, new(fuse.LseekOut)), fuse.EINVAL},
		{"copy from 2^63", statusOf(fs.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: h, FhIn: fh, NodeIdOut: out.NodeId, FhOut: fh, OffIn: far, Len: 1})), fuse.EINVAL},
		{"copy with unknown flags", statusOf(fs.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: h, FhIn: fh, NodeIdOut: out.NodeId, FhOut: fh, Flags: 1})), fuse.EINVAL},
		{"rename with unknown flags", fs.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{NodeId: 1}, Newdir: 1, Flags: 1 << 30}, "file", "x"), fuse.EINVAL},
		{"an attribute with both flags", fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Flags: 3}, "user.x", nil), fuse.EINVAL},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	for _, err := range fs.handles.closeAll() {
		t.Error(err)
	}
}

// FuzzRequests gives the bytes of requests to everything that decodes them.
func FuzzRequests(f *testing.F) {
	for opcode := range uint32(54) {
		request := make([]byte, 160)
		request[4] = byte(opcode)
		request[16] = 1 // the root
		copy(request[120:], "name\x00other\x00")
		f.Add(request)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		if len(request) < 40 {
			return
		}
		fs := newFilesystem(newDrive(t), Options{Timeout: patience, Logger: discard})
		panicked := ""
		server := fuse.NewProtocolServer(fs, &fuse.MountOptions{
			Logger:       slog.NewLogLogger(discard.Handler(), slog.LevelInfo),
			PanicHandler: func(what any) fuse.Status { panicked = fmt.Sprint(what); return fuse.EIO },
		})
		server.HandleRequest([][]byte{request}, [][]byte{make([]byte, 1<<17)})
		if panicked != "" {
			t.Error(panicked)
		}
		for _, err := range fs.handles.closeAll() {
			t.Error(err)
		}
	})
}
