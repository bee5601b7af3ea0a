package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"mediafs/fusefs/fusetest"
)

// A way is one of the ways to mount a drive in which it does not take the same course through the program. Read-only mounts are none
// of them: every test of the suite begins by making something.
type way struct {
	name  string
	on    []kind
	root  bool // only root may
	mount func(t *testing.T, s *store) (folder string)
}

var ways = []way{
	{"by root", []kind{folder, postgres}, true, func(t *testing.T, s *store) string {
		return s.mount(t, s.addUser(t, "alice")).point
	}},
	{"letting others in", []kind{folder, postgres}, true, func(t *testing.T, s *store) string {
		return s.mount(t, s.addUser(t, "alice"), "--allow-other").point
	}},
	{"passed through", []kind{folder}, true, func(t *testing.T, s *store) string {
		return s.mount(t, s.addUser(t, "alice"), "--passthrough").point
	}},
	{"one of an admin's", []kind{folder, postgres}, true, func(t *testing.T, s *store) string {
		alice := s.addUser(t, "alice")
		s.mount(t, alice).unmount(t) // makes it
		return s.mount(t, s.addUser(t, "ada", "--role", "admin")).path(alice.name)
	}},
	{"one of all users'", []kind{folder, postgres}, true, func(t *testing.T, s *store) string {
		users := filepath.Join(s.dir, "users")
		writeFile(t, users, "root "+s.addUser(t, "alice").tokenFile+"\n")
		path, err := program()
		check(t, err)
		return s.mountAs(t, path, s.mountpoint(t), "--all-users", "--users-file", users).path("root")
	}},
	{"by an ordinary user", []kind{folder, postgres}, false, func(t *testing.T, s *store) string {
		return s.mount(t, s.addUser(t, "alice")).point
	}},
}

// posixFolder is the environment variable with the folder that TestPOSIXSuite uses.
const posixFolder = "INTEGRATION_POSIX_FOLDER"

// go-fuse's own suite for file systems passes on both stores, however a drive is mounted.
func TestPOSIX(t *testing.T) {
	t.Parallel()
	for _, w := range ways {
		for _, k := range w.on {
			t.Run(fmt.Sprintf("%s, %s", k, w.name), func(t *testing.T) {
				t.Parallel()
				if w.root {
					requireRoot(t)
					posixSuite(t, w.mount(t, newStore(t, k, person{})))
					return
				}
				s := newStore(t, k, nobody(t))
				s.person.posixSuite(t, w.mount(t, s))
			})
		}
	}
}

func posixSuite(t *testing.T, folder string) {
	t.Helper()
	suite := fusetest.POSIX()
	for _, name := range slices.Sorted(maps.Keys(suite)) {
		t.Run(name, func(t *testing.T) {
			mine := filepath.Join(folder, name)
			check(t, os.Mkdir(mine, 0o755))
			suite[name](t, mine)
		})
	}
}

// posixSuite runs the suite as another user, in another process.
func (p person) posixSuite(t *testing.T, folder string) {
	t.Helper()
	program, err := os.Executable()
	check(t, err)
	readable := filepath.Join(tempDir(t), "tests")
	if out, err := exec.Command("install", "-m", "755", program, readable).CombinedOutput(); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := p.command(ctx, p.stateFolder(), readable, "-test.run=^TestPOSIXSuite$", "-test.v")
	cmd.Env = append(cmd.Env, posixFolder+"="+folder, "TMPDIR="+p.stateFolder())
	if r := finish(t, ctx, cmd); r.code != 0 {
		t.Error(r)
	} else {
		t.Log(r)
	}
}

// What TestPOSIX does as another user.
func TestPOSIXSuite(t *testing.T) {
	folder := os.Getenv(posixFolder)
	if folder == "" {
		t.Skip("TestPOSIX runs it")
	}
	posixSuite(t, folder)
}
