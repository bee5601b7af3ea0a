package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// How long an import of 2,000 files of 4 KiB takes, beside cp -a of the same through a mount:
//
//	go test -run '^$' -bench Import -benchtime 5x ./integration/
func BenchmarkImport(b *testing.B) {
	const files, size = 2000, 4 << 10
	source := filepath.Join(tempDir(b), "source")
	check(b, os.Mkdir(source, 0o755))
	for i := range files {
		check(b, os.WriteFile(filepath.Join(source, fmt.Sprintf("%d-image.jpg", 1_234_567_890+i)), noise(size), 0o644))
	}
	path, err := lean()
	check(b, err)
	for _, k := range []kind{folder, postgres} {
		s := newStore(b, k, person{})
		alice := s.addUser(b, "alice")
		rate := func(b *testing.B) { b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s") }
		b.Run(string(k)+"/cp", func(b *testing.B) {
			m := s.mountWith(b, path, alice, s.mountpoint(b))
			for b.Loop() {
				s.person.run(b, s.dir, "cp", "-a", source, m.path(fmt.Sprint("cp-", b.N))).ok(b)
				b.StopTimer()
				check(b, os.RemoveAll(m.path(fmt.Sprint("cp-", b.N))))
				b.StartTimer()
			}
			rate(b)
			m.unmount(b)
		})
		n := 0
		b.Run(string(k)+"/import", func(b *testing.B) {
			for b.Loop() {
				n++
				s.person.run(b, s.dir, path, "import", "--store", s.address, "--token-file", alice.tokenFile, "--into", fmt.Sprint("import-", n), source).ok(b)
			}
			rate(b)
		})
	}
}
