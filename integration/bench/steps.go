package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// A step is one row of the table.
type step struct {
	name  string
	unit  string
	cold  bool     // done with nothing in a cache of the target or of the kernel
	needs []string // steps whose files this one works on

	// files does it in a folder, raw in the raw database; no raw means that there is nothing to compare there. Both return how many
	// units they have done.
	files func(ctx context.Context, dir string, d *data) (int, error)
	raw   func(r *rawDatabase, ctx context.Context, d *data) (int, error)
}

// The folders that steps keep files in, and the names of their files.
const (
	videoFile   = "video.mp4"
	photosDir   = "photos"
	singlyDir   = "singly"
	together    = "together"
	syncedDir   = "synced"
	atOnce      = 8 // files that are created at a time in together
	photoPrefix = "photo"
	filePrefix  = "file"
	newPrefix   = "renamed"
)

// The names of steps that others need.
const (
	copyVideo  = "copy in a 512 MB video, fsync"
	copyPhotos = "copy in 300 photos"
	create     = "create 2,000 small files"
	createAt8  = "the same, 8 at a time"
	createSync = "the same, each fsynced"
)

// steps are the rows, in the order in which they are done.
var steps = []step{
	{name: copyVideo, unit: "MB/s", files: copyInVideo, raw: (*rawDatabase).copyInVideo},
	{name: copyPhotos, unit: "MB/s", files: copyInPhotos, raw: (*rawDatabase).copyInPhotos},
	{name: create, unit: "files/s", files: createSmall(singlyDir, 1, false), raw: (*rawDatabase).createSingly},
	{name: createAt8, unit: "files/s", files: createSmall(together, atOnce, false), raw: (*rawDatabase).createTogether},
	{name: createSync, unit: "files/s", files: createSmall(syncedDir, 1, true), raw: (*rawDatabase).createSynced},
	{name: "walk and stat, cold", unit: "entries/s", cold: true, needs: []string{copyVideo, copyPhotos, create, createAt8, createSync},
		files: walk, raw: (*rawDatabase).walk},
	{name: "read the video, cold", unit: "MB/s", cold: true, needs: []string{copyVideo}, files: readVideo, raw: (*rawDatabase).readVideo},
	{name: "read the photos, cold", unit: "MB/s", cold: true, needs: []string{copyPhotos}, files: readPhotos, raw: (*rawDatabase).readPhotos},
	{name: "read the small files, cold", unit: "files/s", cold: true, needs: []string{create}, files: readSmall, raw: (*rawDatabase).readSmall},
	{name: "random 4K reads, cold", unit: "reads/s", cold: true, needs: []string{copyVideo}, files: readRandomly, raw: (*rawDatabase).readRandomly},
	{name: "500 random 4K writes, one fsync", unit: "writes/s", needs: []string{copyVideo}, files: writeRandomly, raw: (*rawDatabase).writeRandomly},
	{name: "rename", unit: "ops/s", needs: []string{create}, files: rename, raw: (*rawDatabase).rename},
	{name: "rm -rf", unit: "files/s", needs: []string{createAt8}, files: removeAll, raw: (*rawDatabase).removeAll},
}

func copyInVideo(ctx context.Context, dir string, d *data) (int, error) {
	err := copyIn(ctx, filepath.Join(dir, videoFile), d.video, true)
	return len(d.video) / megabyte, err
}

func copyInPhotos(ctx context.Context, dir string, d *data) (int, error) {
	folder := filepath.Join(dir, photosDir)
	if err := os.Mkdir(folder, 0o755); err != nil {
		return 0, err
	}
	for i, photo := range d.photos {
		if err := copyIn(ctx, filepath.Join(folder, fileName(photoPrefix, i)), photo, false); err != nil {
			return 0, err
		}
	}
	return megabytes(d.photos), nil
}

func megabytes(files [][]byte) int {
	n := 0
	for _, content := range files {
		n += len(content)
	}
	return max(1, n/megabyte)
}

// copyIn makes a file as cp does, in pieces of 1 MB.
func copyIn(ctx context.Context, path string, content []byte, sync bool) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for len(content) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(len(content), megabyte)
		if _, err := f.Write(content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	if sync {
		return f.Sync()
	}
	return nil
}

// createSmall makes a folder of small files, by so many programs at a time.
func createSmall(folder string, clients int, sync bool) func(context.Context, string, *data) (int, error) {
	return func(ctx context.Context, dir string, d *data) (int, error) {
		folder := filepath.Join(dir, folder)
		if err := os.Mkdir(folder, 0o755); err != nil {
			return 0, err
		}
		err := share(ctx, clients, len(d.small), func(ctx context.Context, i int) error {
			return copyIn(ctx, filepath.Join(folder, fileName(filePrefix, i)), d.small[i], sync)
		})
		return len(d.small), err
	}
}

// share has clients do n pieces of work, of which each takes every clients-th.
func share(ctx context.Context, clients, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for c := range clients {
		group.Go(func() error {
			for i := c; i < n; i += clients {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func walk(ctx context.Context, dir string, _ *data) (entries int, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			_, err = entry.Info()
		}
		entries++
		return err
	})
	return entries, err
}

func readVideo(ctx context.Context, dir string, d *data) (int, error) {
	err := readBack(ctx, filepath.Join(dir, videoFile), d.video, make([]byte, megabyte))
	return len(d.video) / megabyte, err
}

func readPhotos(ctx context.Context, dir string, d *data) (int, error) {
	buffer := make([]byte, megabyte)
	for i, photo := range d.photos {
		if err := readBack(ctx, filepath.Join(dir, photosDir, fileName(photoPrefix, i)), photo, buffer); err != nil {
			return 0, err
		}
	}
	return megabytes(d.photos), nil
}

func readSmall(ctx context.Context, dir string, d *data) (int, error) {
	buffer := make([]byte, 2*blockSize)
	for i, content := range d.small {
		if err := readBack(ctx, filepath.Join(dir, singlyDir, fileName(filePrefix, i)), content, buffer); err != nil {
			return 0, err
		}
	}
	return len(d.small), nil
}

// readBack reads a file to its end and checks it.
func readBack(ctx context.Context, path string, want, buffer []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	at := 0
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.Read(buffer)
		if err == io.EOF {
			if at != len(want) {
				return fmt.Errorf("%s has %d bytes, want %d", path, at, len(want))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if at+n > len(want) || !looksLike(buffer[:n], want[at:at+n]) {
			return fmt.Errorf("%s: other bytes at %d than were written", path, at)
		}
		at += n
	}
}

// looksLike compares the ends of two stretches of the same length: all of them would cost a fast target a good part of its time.
func looksLike(got, want []byte) bool {
	n := min(64, len(want))
	return len(got) == len(want) && bytes.Equal(got[:n], want[:n]) && bytes.Equal(got[len(got)-n:], want[len(want)-n:])
}

func readRandomly(ctx context.Context, dir string, d *data) (int, error) {
	f, err := os.Open(filepath.Join(dir, videoFile))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buffer := make([]byte, blockSize)
	for _, off := range d.reads {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if _, err := f.ReadAt(buffer, off); err != nil {
			return 0, err
		}
		if !looksLike(buffer, d.video[off:off+blockSize]) {
			return 0, fmt.Errorf("%s: other bytes at %d than were written", f.Name(), off)
		}
	}
	return len(d.reads), nil
}

func writeRandomly(ctx context.Context, dir string, d *data) (n int, err error) {
	f, err := os.OpenFile(filepath.Join(dir, videoFile), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i, off := range d.writes {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if _, err := f.WriteAt(d.blocks[i], off); err != nil {
			return 0, err
		}
	}
	return len(d.writes), f.Sync()
}

func rename(ctx context.Context, dir string, d *data) (int, error) {
	folder := filepath.Join(dir, singlyDir)
	for i := range d.small {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err := os.Rename(filepath.Join(folder, fileName(filePrefix, i)), filepath.Join(folder, fileName(newPrefix, i))); err != nil {
			return 0, err
		}
	}
	return len(d.small), nil
}

func removeAll(_ context.Context, dir string, d *data) (int, error) {
	return len(d.small), os.RemoveAll(filepath.Join(dir, together))
}
