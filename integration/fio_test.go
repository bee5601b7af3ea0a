package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fioJobs are the ways to write that fio is told, one after the other; each block carries its own checksum and number. fio reads
// them all back at the end of each, and again when it is told to do nothing else.
func fioJobs(folder string) string {
	return fmt.Sprintf(`
		[global]
		directory=%s
		verify=crc32c
		verify_fatal=1
		verify_state_save=0
		randrepeat=1
		end_fsync=1
		stonewall

		[sequential]
		rw=write
		bs=128k
		size=%s

		[random]
		rw=randwrite
		bsrange=2k-48k
		size=%s

		[four-jobs]
		rw=randwrite
		bs=16k
		numjobs=4
		size=%s

		[mapped]
		ioengine=mmap
		rw=randwrite
		bs=4k
		size=%[3]s

		[direct]
		ioengine=libaio
		direct=1
		iodepth=8
		rw=randwrite
		bs=4k
		size=%[4]s
		`, folder, size("32m", "1g"), size("4m", "128m"), size("2m", "64m"))
}

// What fio writes through write, mmap and O_DIRECT, in one process and in four, has the checksums that it was written with: while
// it is cached and after it was mounted again. That fio would tell, it shows at the end.
func TestFioReadsWhatItWrote(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		jobs := filepath.Join(s.dir, "jobs.fio")
		writeFile(t, jobs, strings.ReplaceAll(fioJobs(m.point), "\t", ""))
		s.person.run(t, s.dir, "fio", jobs).ok(t)
		m.unmount(t)

		m = s.mountAt(t, alice, m.point)
		s.person.run(t, s.dir, "fio", "--verify_only", jobs).ok(t)

		files, err := filepath.Glob(m.path("random.*"))
		check(t, err)
		if len(files) != 1 {
			t.Fatalf("fio's files of random writes are %q, want one", files)
		}
		file, err := os.OpenFile(files[0], os.O_RDWR, 0)
		check(t, err)
		b := make([]byte, 1)
		_, err = file.ReadAt(b, 1<<20)
		check(t, err)
		_, err = file.WriteAt([]byte{b[0] ^ 1}, 1<<20)
		check(t, err)
		check(t, file.Close())
		if r := s.person.run(t, s.dir, "fio", "--verify_only", "--section=random", jobs); r.code == 0 {
			t.Errorf("one bit of a file was changed, and fio does not see it: %v", r)
		}
	})
}
