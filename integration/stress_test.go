package integration

import (
	"strings"
	"testing"
)

// notOfADrive are those of stress-ng's class for file systems that use no file in the folder that they are told, or use every mount
// of the machine, those of other tests too; and those that leave out what they do on any drive of FUSE.
const notOfADrive = "bind-mount,binderfs,dup,eventfd,fanotify,getdent,io,ioprio,procfs,fiemap,verity"

// takingLong are those that take longer than they are told to, or for whose sort another one stands where time is short.
const takingLong = ",chdir,dirdeep,dnotify,file-ioctl,filename,handle,inode-flags,locka,lockofd,lockf,fsize,hdd,touch,link,symlink,lease"

// stress-ng does to a file system what its authors have thought of, one thing after the other, checks what comes of it, and leaves
// nothing behind. On a local disk none of it fails.
func TestStressNGFindsNothingWrong(t *testing.T) {
	requireRoot(t) // its users change owners
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"))
		r := s.person.run(t, m.point, "stress-ng", "--class", "filesystem", "--seq", size("1", "2"), "--timeout", size("1s", "5s"),
			"--exclude", notOfADrive+size(takingLong, ""), "--temp-path", m.point, "--verify", "--metrics",
			"--fallocate-bytes", "32m", "--iomix-bytes", "8m", "--sync-file-bytes", "8m", "--copy-file-bytes", "128m", "--hdd-bytes", "8m")
		r.ok(t)
		output := r.stdout + r.stderr
		for line := range strings.Lines(output) {
			if strings.Contains(line, "fail:") || strings.Contains(line, "error:") || strings.Contains(line, "unsuccessful") {
				t.Errorf("stress-ng says: %s", line)
			}
		}
		t.Log(output)
		m.unmount(t)
		s.isEmpty(t)
	})
}
