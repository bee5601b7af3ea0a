package dirstore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

// BenchmarkQuota is what a quota costs that is not reached: new files of 4 KiB, one after the other, and writing on in a file.
func BenchmarkQuota(b *testing.B) {
	root := filepath.Join(b.TempDir(), "media")
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(dirstore.Init(root))
	store, err := dirstore.Open(root, slog.New(slog.DiscardHandler))
	must(err)
	defer store.Close()
	d, err := store.Open(b.Context(), auth.Session{User: "alice", Role: auth.RoleUser})
	must(err)
	defer d.Close(b.Context())
	small, large := make([]byte, 4096), make([]byte, 1<<20)
	made := 0
	create := func() blobstore.File {
		made++
		f, _, _, err := d.Create(b.Context(), blobstore.RootIno, fmt.Sprint(made), blobstore.NewNode{Mode: unix.S_IFREG | 0o600}, blobstore.OpenWrite)
		must(err)
		return f
	}
	for _, c := range []struct {
		name  string
		bytes int64
	}{{"without", 0}, {"with", 1 << 50}, {"without again", 0}, {"with again", 1 << 50}} {
		must(dirstore.SetQuota(b.Context(), root, "alice", c.bytes, c.bytes))
		_, err := d.Usage(b.Context()) // looks for limits
		must(err)
		b.Run(c.name+"/new file", func(b *testing.B) {
			for b.Loop() {
				f := create()
				_, err := f.WriteAt(b.Context(), small, 0)
				must(errors.Join(err, f.Flush(b.Context()), f.Close()))
			}
		})
		b.Run(c.name+"/write", func(b *testing.B) {
			f := create()
			b.SetBytes(int64(len(large)))
			for i := int64(0); b.Loop(); i++ {
				_, err := f.WriteAt(b.Context(), large, i%256<<20)
				must(err)
			}
			must(f.Close())
		})
	}
}
