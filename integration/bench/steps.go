package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The sizes of what is copied.
const (
	videoBytes = 512 << 20
	photoBytes = 512 << 10
	smallBytes = 4 << 10
	block      = 1 << 20 // what one read or write of a large file takes
)

// work is one run of all steps in one folder, with data of its own.
type work struct {
	dir    string
	random *rand.Rand
	noise  []byte // incompressible
	scale  int
}

// noiseBytes is how much noise there is. What is written begins somewhere in it and is stamped with a number.
const noiseBytes = 64 << 20

func newNoise(seed uint64) []byte {
	p := make([]byte, noiseBytes)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = random.Read(p) // it never fails
	return p
}

func (w *work) video() int  { return videoBytes / w.scale }
func (w *work) photos() int { return max(300/w.scale, 3) }
func (w *work) small() int  { return max(2000/w.scale, 10) }
func (w *work) reads() int  { return max(3000/w.scale, 10) }
func (w *work) writes() int { return max(500/w.scale, 10) }

// data is n bytes that are nowhere else.
func (w *work) data(n int) []byte {
	at := w.random.IntN(len(w.noise) - n + 1)
	return w.noise[at : at+n]
}

// A step is measured: how much it does a second.
type step struct {
	name string
	unit string
	cold bool // everything is read anew
	do   func(ctx context.Context, w *work) (amount float64, err error)
}

const megabyte = 1e6

var steps = []step{
	{"copy in a 512 MB video, fsync", "MB/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.video()) / megabyte, w.write("video", w.video(), true)
	}},
	{"copy in 300 photos", "MB/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.photos()*photoBytes) / megabyte, w.each("photos", w.photos(), func(path string) error { return w.write(path, photoBytes, false) })
	}},
	{"create 2,000 small files", "files/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.small()), w.each("small", w.small(), func(path string) error { return w.write(path, smallBytes, false) })
	}},
	{"the same, 8 at a time", "files/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.small()), w.eight("eight", w.small(), smallBytes)
	}},
	{"the same, each fsynced", "files/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.small()), w.each("synced", w.small(), func(path string) error { return w.write(path, smallBytes, true) })
	}},
	{"walk and stat, cold", "entries/s", true, func(_ context.Context, w *work) (float64, error) {
		return w.walk()
	}},
	{"read the video, cold", "MB/s", true, func(_ context.Context, w *work) (float64, error) {
		return float64(w.video()) / megabyte, w.read("video", w.video())
	}},
	{"read the photos, cold", "MB/s", true, func(_ context.Context, w *work) (float64, error) {
		return float64(w.photos()*photoBytes) / megabyte, w.again("photos", w.photos(), func(path string) error { return w.read(path, photoBytes) })
	}},
	{"read the small files, cold", "files/s", true, func(_ context.Context, w *work) (float64, error) {
		return float64(w.small()), w.again("small", w.small(), func(path string) error { return w.read(path, smallBytes) })
	}},
	{"random 4K reads, cold", "reads/s", true, func(_ context.Context, w *work) (float64, error) {
		return float64(w.reads()), w.randomly(unix.O_RDONLY, w.reads(), func(fd int, off int64) (int, error) { return unix.Pread(fd, make([]byte, smallBytes), off) })
	}},
	{"500 random 4K writes, one fsync", "writes/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.writes()), w.randomly(unix.O_WRONLY, w.writes(), func(fd int, off int64) (int, error) { return unix.Pwrite(fd, w.data(smallBytes), off) })
	}},
	{"rename", "ops/s", false, func(_ context.Context, w *work) (float64, error) {
		return float64(w.small()), w.again("small", w.small(), func(path string) error {
			return os.Rename(w.path(path), w.path(path+".renamed"))
		})
	}},
	{"rm -rf", "files/s", false, func(ctx context.Context, w *work) (float64, error) {
		return float64(1 + w.photos() + 3*w.small()), run(ctx, nil, "rm", "-rf", w.dir)
	}},
}

func (w *work) path(name string) string { return filepath.Join(w.dir, name) }

// write makes a file of so many bytes.
func (w *work) write(name string, n int, sync bool) error {
	f, err := os.OpenFile(w.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for done := 0; done < n && err == nil; {
		var written int
		written, err = f.Write(w.data(min(n-done, block)))
		done += written
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// read reads a file that has so many bytes.
func (w *work) read(name string, n int) error {
	f, err := os.Open(w.path(name))
	if err != nil {
		return err
	}
	p := make([]byte, min(block, n))
	got := 0
	for {
		some, err := f.Read(p)
		got += some
		if some == 0 || err != nil {
			break
		}
	}
	if got != n {
		err = fmt.Errorf("%s: read %d bytes, want %d", name, got, n)
	}
	return errors.Join(err, f.Close())
}

// each does something with n names of a new folder, again with those of one that is there.
func (w *work) each(folder string, n int, do func(path string) error) error {
	if err := os.Mkdir(w.path(folder), 0o755); err != nil {
		return err
	}
	return w.again(folder, n, do)
}

func (w *work) again(folder string, n int, do func(path string) error) error {
	for i := range n {
		if err := do(filepath.Join(folder, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

// eight makes files, eight at a time.
func (w *work) eight(folder string, n, size int) error {
	if err := os.Mkdir(w.path(folder), 0o755); err != nil {
		return err
	}
	var makers errgroup.Group
	for k := range 8 {
		own := &work{dir: w.dir, random: rand.New(rand.NewPCG(w.random.Uint64(), uint64(k))), noise: w.noise, scale: w.scale}
		makers.Go(func() error {
			for i := k; i < n; i += 8 {
				if err := own.write(filepath.Join(folder, strconv.Itoa(i)), size, false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return makers.Wait()
}

// walk looks at everything there is, as find -printf %s does.
func (w *work) walk() (float64, error) {
	entries := 0
	err := filepath.WalkDir(w.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		entries++
		return err
	})
	return float64(entries), err
}

// randomly reads or writes 4 KiB of the video at n places, and syncs what was written.
func (w *work) randomly(flags, n int, do func(fd int, off int64) (int, error)) error {
	fd, err := unix.Open(w.path("video"), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for i := 0; i < n && err == nil; i++ {
		var done int
		if done, err = do(fd, w.random.Int64N(int64(w.video()/smallBytes))*smallBytes); err == nil && done != smallBytes {
			err = fmt.Errorf("%d bytes of %d", done, smallBytes)
		}
	}
	if flags != unix.O_RDONLY && err == nil {
		err = unix.Fsync(fd)
	}
	return errors.Join(err, unix.Close(fd))
}
