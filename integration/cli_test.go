package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheProgramTellsItsVersionAndItsCommands(t *testing.T) {
	t.Parallel()
	s := bareStore(t, folder, person{})
	if out := s.mediafs(t, "--version").ok(t); !strings.HasPrefix(out, "mediafs version ") {
		t.Errorf("--version prints %q", out)
	}
	help := s.mediafs(t, "help").ok(t)
	for _, command := range []string{"init", "user", "mount", "umount", "status"} {
		if !strings.Contains(help, command) {
			t.Errorf("the help lacks %s:\n%s", command, help)
		}
		if out := s.mediafs(t, command, "--help").ok(t); !strings.Contains(out, "mediafs "+command) {
			t.Errorf("the help of %s:\n%s", command, out)
		}
	}
	complains(t, s.mediafs(t, "mout"), codeUsage, "mout")
	complains(t, s.mediafs(t, "mount", "--no-such-flag"), codeUsage, "no-such-flag")
	complains(t, s.mediafs(t, "umount"), codeUsage, "MOUNTPOINT")
}

func TestTheShellCompletesCommands(t *testing.T) {
	t.Parallel()
	s := bareStore(t, folder, person{})
	path, err := program()
	check(t, err)
	script := `PATH=$PATH:` + filepath.Dir(path) + `; eval "$(mediafs completion bash)"
		COMP_WORDS=(mediafs u); COMP_CWORD=1; _mediafs; echo "${COMPREPLY[@]}"`
	got := strings.Fields(s.person.shell(t, s.dir, script).ok(t))
	slices.Sort(got)
	if want := []string{"umount", "user"}; !slices.Equal(got, want) {
		t.Errorf("mediafs u is completed with %q, want %q", got, want)
	}
}

func TestInitCanBeDoneAgainAndSaysWhatToDoNext(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s := bareStore(t, k, person{})
		first := s.mediafs(t, "init", "--store", s.address).ok(t)
		if !strings.Contains(first, "mediafs user add") || !strings.Contains(first, "mediafs mount") {
			t.Errorf("init does not say what to do next:\n%s", first)
		}
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		writeFile(t, m.path("file"), "kept")
		s.mediafs(t, "init", "--store", s.address).ok(t)
		if got := readFile(t, m.path("file")); got != "kept" {
			t.Errorf("after another init the file holds %q", got)
		}
		m.unmount(t)
		m = s.mount(t, alice) // the token is good still
		m.unmount(t)
	})
}

func TestUsersComeAndGo(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		names := func() (names []string) {
			t.Helper()
			for i, line := range strings.Split(strings.TrimSpace(s.mediafs(t, "user", "list", "--store", s.address).ok(t)), "\n") {
				if i > 0 { // the heading
					names = append(names, strings.Fields(line)[0])
				}
			}
			return names
		}
		bob, alice := s.addUser(t, "bob", "--role", "admin"), s.addUser(t, "alice")
		if got, want := names(), []string{"alice", "bob"}; !slices.Equal(got, want) {
			t.Errorf("users %q, want %q", got, want)
		}
		if alice.token(t) == bob.token(t) {
			t.Error("two users have one token")
		}
		m := s.mount(t, alice)
		writeFile(t, m.path("file"), "kept")
		m.unmount(t)

		r := s.mediafs(t, "user", "token", "--store", s.address, "alice")
		renewed := r.ok(t)
		if len(strings.Fields(renewed)) != 1 || !strings.HasPrefix(renewed, "mfs_") || r.stderr != "" {
			t.Errorf("want the token alone: %v", r)
		}
		complains(t, s.mediafs(t, "mount", "--store", s.address, "--token-file", alice.tokenFile, m.point), codeToken)
		alice.tokenFile = s.saveToken(t, "alice", renewed)
		m = s.mount(t, alice)
		if got := readFile(t, m.path("file")); got != "kept" {
			t.Errorf("with a new token the file holds %q", got)
		}
		m.unmount(t)

		s.mediafs(t, "user", "remove", "--store", s.address, "alice").ok(t)
		complains(t, s.mediafs(t, "mount", "--store", s.address, "--token-file", alice.tokenFile, m.point), codeToken)
		if got, want := names(), []string{"bob"}; !slices.Equal(got, want) {
			t.Errorf("users %q, want %q", got, want)
		}
		m = s.mount(t, s.addUser(t, "alice")) // the drive has waited
		if got := readFile(t, m.path("file")); got != "kept" {
			t.Errorf("for a user who is added again the file holds %q", got)
		}
	})
}

func TestAMountSaysWhatItIsAndHidesTheToken(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		m := s.mount(t, alice)
		if want := "mounted alice at " + m.point; m.line != want {
			t.Errorf("it printed %q, want %q", m.line, want)
		}
		entry := mounted(t, m.point)
		if entry.fstype != "fuse.mediafs" || !strings.Contains(entry.source, "alice") {
			t.Errorf("the kernel shows %q of type %q, want alice's drive of type fuse.mediafs", entry.source, entry.fstype)
		}
		for _, option := range []string{"nosuid", "nodev", "default_permissions"} {
			if !slices.Contains(entry.options, option) {
				t.Errorf("mounted with %q, want %s among them", entry.options, option)
			}
		}
		arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.cmd.Process.Pid))
		check(t, err)
		if strings.Contains(string(arguments), alice.token(t)) {
			t.Error("ps shows the token")
		}
		mountStatus := s.status(t, m.point)
		if mountStatus.Drive != "alice" || mountStatus.PID != m.cmd.Process.Pid {
			t.Errorf("status says %+v, want alice's drive and process %d", mountStatus, m.cmd.Process.Pid)
		}
		if out := s.mediafs(t, "status").ok(t); !strings.Contains(out, m.point) || strings.Contains(out, alice.token(t)) {
			t.Errorf("status says:\n%s", out)
		}
		m.unmount(t)
		if strings.Contains(m.stderr.String(), alice.token(t)) {
			t.Error("the token is in the log")
		}
		var after []driveStatus
		check(t, json.Unmarshal([]byte(s.mediafs(t, "status", "--json").ok(t)), &after))
		if slices.ContainsFunc(after, func(d driveStatus) bool { return d.Mountpoint == m.point }) {
			t.Error("status still shows the drive after it was unmounted")
		}
	})
}

// A driveStatus is what scripts may rely on of mediafs status --json.
type driveStatus struct {
	Drive        string `json:"drive"`
	Mountpoint   string `json:"mountpoint"`
	PID          int    `json:"pid"`
	PendingBytes *int64 `json:"pending_bytes"`
	Errors       uint64 `json:"errors"`
}

func (s *store) status(t *testing.T, point string) driveStatus {
	t.Helper()
	var all []driveStatus
	out := s.mediafs(t, "status", "--json").ok(t)
	check(t, json.Unmarshal([]byte(out), &all))
	for _, d := range all {
		if d.Mountpoint == point {
			return d
		}
	}
	t.Fatalf("status does not show %s: %s", point, out)
	return driveStatus{}
}

func TestADaemonReturnsWhenTheDriveIsMounted(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		point := s.mountpoint(t)
		args := []string{"mount", "--store", s.address, "--token-file", alice.tokenFile, "--daemon", point}
		t.Cleanup(func() {
			if isMounted(t, point) {
				s.mediafs(t, "umount", point).ok(t)
			}
		})
		if out := s.mediafs(t, args...).ok(t); out != "mounted alice at "+point+"\n" {
			t.Errorf("it printed %q", out)
		}
		s.person.shell(t, point, "echo works >file").ok(t)
		complains(t, s.mediafs(t, args...), codeMountpoint, point)
		if d := s.status(t, point); d.Drive != "alice" {
			t.Errorf("status says %+v", d)
		}
		s.mediafs(t, "umount", point).ok(t)
		if isMounted(t, point) {
			t.Error("still mounted after umount")
		}
		// umount waits until all is stored, so mounting again shows it, and until the process is done with its files.
		s.mediafs(t, args...).ok(t)
		if got := s.person.shell(t, point, "cat file").ok(t); got != "works\n" {
			t.Errorf("read %q", got)
		}
		s.mediafs(t, "umount", point).ok(t)

		// A daemon that can't mount says why, and its code.
		wrong := s.saveToken(t, "wrong", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		r := s.mediafs(t, "mount", "--store", s.address, "--token-file", wrong, "--daemon", point)
		complains(t, r, codeToken)
	})
}

func TestTheEnvironmentStandsInForFlags(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		path, err := program()
		check(t, err)
		point := s.mountpoint(t)
		script := `export MEDIAFS_STORE=$1 MEDIAFS_TOKEN; MEDIAFS_TOKEN=$(cat "$2")
			"$3" mount --daemon "$4"; "$3" user list; ls -A "$4"; "$3" umount "$4"`
		out := s.person.run(t, s.dir, "bash", "-euc", script, "bash", s.address, alice.tokenFile, path, point).ok(t)
		if !strings.Contains(out, "mounted alice at "+point) {
			t.Errorf("it printed %q", out)
		}
	})
}
