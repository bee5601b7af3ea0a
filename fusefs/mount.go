// Package fusefs shows a blobstore.Drive, or many of them, to the kernel as a file system.
//
// A request travels one straight way: the kernel asks, a method of the type filesystem decodes what it asks, finds the drive and
// the node (drive.go), calls one method of the drive and encodes the answer. There is no tree here: the kernel knows nodes by the
// drive's own numbers (nodeid.go), and so memory does not grow with the number of nodes that it has seen. What is kept is what is
// open (handle.go), and for the audit log (audit.go) a bounded memory of where nodes were seen (paths.go).
//
// The kernel checks modes and owners itself (default_permissions), keeps file locks itself unless the drive does (locks.go), and
// remembers names and attributes for as long as cache.go says. Every request has a deadline (request.go), every error one errno (errno.go).
package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Options say how a drive, or many of them, is mounted.
type Options struct {
	Mountpoint string        // an empty folder
	FSName     string        // the first column of df(1), for example "mediafs:alice"
	AllowOther bool          // let other users of this machine in, as far as modes and owners allow
	ReadOnly   bool          // refuse every change
	RootMode   uint32        // of the folder that shows many drives; 0: 0700
	Timeout    time.Duration // deadline of each operation; 0: 30 s
	Logger     *slog.Logger  // nil: nothing is logged

	InflightBytes int64 // of requests that are read from the kernel and not yet answered; 0: DefaultInflightBytes
	OpenDrives    int   // of many, how many stay open when nobody uses them, those aside that are kept; 0: DefaultOpenDrives

	// Locks has the kernel leave file locks to the drives of a mount of many, which are a blobstore.Locker each. A mount of one
	// drive sees by itself whether it is one.
	Locks bool

	// Passthrough has the kernel read and write the plain files behind a drive itself, where it can. It is faster; but a
	// file that is open then stays so when its session ends, and how much is written to it is not known here.
	Passthrough bool
}

// The defaults of what Options bound.
const (
	DefaultInflightBytes = 64 << 20
	DefaultOpenDrives    = 64
)

const (
	typeName       = "mediafs" // the kernel shows it as fuse.mediafs
	defaultTimeout = 30 * time.Second

	defaultRootMode = 0o700

	maxRequest    = 1 << 20 // bytes of one READ or WRITE; the most that the kernel takes by default (fs.fuse.max_pages_limit)
	maxBackground = 64      // requests for read-ahead and write-back that the kernel has under way
)

// withDefaults fills in what was left open.
func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RootMode == 0 {
		o.RootMode = defaultRootMode
	}
	if o.InflightBytes == 0 {
		o.InflightBytes = DefaultInflightBytes
	}
	if o.OpenDrives == 0 {
		o.OpenDrives = DefaultOpenDrives
	}
	return o
}

// A Mount is a drive, or a folder of many, attached to a folder.
type Mount struct {
	fs         *filesystem
	server     *fuse.Server
	mountpoint string // absolute
	device     uint64 // st_dev of everything in the mount
	direct     bool   // mount(2) and umount(2) ourselves, without fusermount3
	done       chan struct{}
	unmounting sync.Mutex // one Unmount at a time
}

// New mounts the drive and serves it; it returns when the mount answers. The drive stays the caller's, who closes it when
// Done is closed.
func New(drive blobstore.Drive, o Options) (*Mount, error) {
	o = o.withDefaults()
	return attach(newFilesystem(drive, o), o)
}

// attach mounts a file system.
func attach(fs *filesystem, o Options) (*Mount, error) {
	mountpoint, err := filepath.Abs(o.Mountpoint)
	if err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", o.Mountpoint, err)
	}
	privileged := os.Geteuid() == 0
	if err := checkMounter(privileged); err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", mountpoint, err)
	}
	if err := checkMountpoint(mountpoint); err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", mountpoint, err)
	}

	m := &Mount{fs: fs, mountpoint: mountpoint, direct: privileged, done: make(chan struct{})}
	if o.AllowOther && !privileged {
		if err := userAllowOther(fuseConf); err != nil {
			o.AllowOther = false
			fs.note("other users are not let in: " + err.Error())
		}
	}
	m.server, err = fuse.NewServer(fs, mountpoint, mountOptions(o, privileged, fs.locks))
	if err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", mountpoint, mountError(err, privileged))
	}
	// go-fuse leaves /dev/fuse open for programs that are started from here, and a mount lasts as long as anybody has that open.
	// Kernels before 5.11 can't say this for all descriptors at once: there such a program may keep a mount that was killed.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	go m.serve()
	if err := m.answering(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
		defer cancel()
		return nil, fmt.Errorf("mountpoint %s: %w", mountpoint, errors.Join(err, m.Unmount(ctx)))
	}
	if privileged {
		if err := m.raiseReadAhead(); err != nil {
			fs.log.Debug("large files are read more slowly than they could be", "error", err)
		}
	}
	return m, nil
}

// mountOptions are what go-fuse is to tell the kernel.
func mountOptions(o Options, privileged, locks bool) *fuse.MountOptions {
	options := &fuse.MountOptions{
		FsName:                  o.FSName,
		Name:                    typeName,
		AllowOther:              o.AllowOther,
		Options:                 []string{"default_permissions"},
		MaxWrite:                maxRequest,
		MaxBackground:           maxBackground,
		MaxInflightRequestBytes: int(o.InflightBytes),
		Logger:                  slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		EnableLocks:             locks,
		// A symbolic link's target never changes, and its number is never another node's.
		EnableSymlinkCaching: true,
		// On top of ASYNC_READ, AUTO_INVAL_DATA, PARALLEL_DIROPS and READDIRPLUS, which go-fuse asks for. Not
		// READDIRPLUS_AUTO: it gets attributes with the first part of a listing alone, and so a long `ls -l` would
		// look up each of the rest.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_ASYNC_DIO |
			// Otherwise the kernel asks for security.capability before each write. In return set-user-ID
			// bits are ours to clear: see privileges.go.
			fuse.CAP_HANDLE_KILLPRIV_V2,
		DirectMountStrict: privileged,
	}
	if privileged {
		options.DirectMountFlags = unix.MS_NOSUID | unix.MS_NODEV
		if o.ReadOnly {
			options.DirectMountFlags |= unix.MS_RDONLY
		}
	} else {
		options.Options = append(options.Options, "nosuid", "nodev")
		if o.ReadOnly {
			options.Options = append(options.Options, "ro")
		}
	}
	if !privileged || !o.Passthrough {
		options.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	return options
}

// serve answers the kernel until the connection is down, and then closes what was left open.
func (m *Mount) serve() {
	defer close(m.done)
	m.server.Serve()
	m.fs.stop()
}

// answering returns when the mount has answered a request.
func (m *Mount) answering() error {
	if err := m.server.WaitMount(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(m.mountpoint, &st); err != nil {
		return err
	}
	m.device = st.Dev
	return nil
}

// Done is closed when nothing is mounted any longer, whoever unmounted it, and every request has been answered.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Stats returns the counts as they are now.
func (m *Mount) Stats() Stats { return m.fs.stats() }

// Notes are, in sentences, what was asked of the kernel and refused, and what that means. More may come while files are opened.
func (m *Mount) Notes() []string { return m.fs.noted() }
