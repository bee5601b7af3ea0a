package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/blobstore"
)

// isWhole fails the test if `mediafs check` finds anything wrong with the store. Drives may be mounted.
func (s *store) isWhole(t testing.TB) {
	t.Helper()
	administrator := s.checker()
	if r := administrator.mediafs(t, "check", "--store", administrator.address); r.code != 0 {
		t.Errorf("the store is not whole: %v", r)
	}
}

// checker is the store as its administrator reaches it.
func (s *store) checker() *store {
	if s.kind != postgres {
		return s
	}
	administrator := *s
	administrator.address = s.database
	return &administrator
}

// findings are what `mediafs check --json` printed, and its last line.
func findings(t *testing.T, r result) (list []blobstore.Finding, last map[string]any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	for _, line := range lines[:len(lines)-1] {
		var f blobstore.Finding
		check(t, json.Unmarshal([]byte(line), &f))
		list = append(list, f)
	}
	check(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	return list, last
}

func TestCheckOfAMountedStore(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		drive := s.mount(t, alice).path()
		s.mount(t, bob)
		s.person.shell(t, drive, `
			mkdir -p Reisen/2024 empty
			head -c 3000000 /dev/urandom >Reisen/2024/photo
			ln Reisen/2024/photo Reisen/again
			ln -s 2024/photo Reisen/link
			truncate -s 1G sparse
			head -c 2000000 /dev/urandom >cut
			: >cut
			for i in $(seq 100); do echo $i >empty/$i; done
			rm empty/5? Reisen/2024/photo
			mv empty full
			setfattr -n user.note -v hers sparse`).ok(t)
		s.isWhole(t)

		r := s.checker().mediafs(t, "check", "--store", s.address)
		if last := r.ok(t); !strings.HasPrefix(last, "3 drives, ") || !strings.HasSuffix(last, ": whole\n") || strings.Count(last, "\n") != 1 {
			t.Errorf("got %v", r)
		}
		_, counts := findings(t, s.checker().mediafs(t, "check", "--store", s.address, "--json"))
		if counts["drives"] != 3.0 || counts["whole"] != true || counts["bytes"].(float64) < 3e6 || counts["nodes"].(float64) < 100 {
			t.Errorf("got %v", counts)
		}
	})
}

func TestCheckFindsWhatIsBrokenAndRepairsIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		for _, u := range []user{alice, bob} {
			m := s.mount(t, u)
			s.person.shell(t, m.path(), "echo "+u.name+" >file; mkdir folder; echo below >folder/below").ok(t)
			m.unmount(t)
		}
		s.isWhole(t)
		kind, drive := "orphan", blobstore.DriveName("alice")
		if s.kind == postgres {
			_, err := s.connect(t).Exec(context.Background(), `delete from mediafs.entries e using mediafs.drives d
				where d.owner = 'alice' and e.drive_id = d.drive_id and e.name = 'file'`)
			check(t, err)
		} else {
			kind, drive = "mode", ""
			check(t, os.Chmod(filepath.Join(s.root, ".mediafs", "accounts.json"), 0o644))
		}

		broken := s.checker().mediafs(t, "check", "--store", s.address, "--json")
		list, last := findings(t, broken)
		if broken.code != 1 || !strings.Contains(broken.stderr, "is not whole: run `mediafs check --repair`") || len(list) != 1 ||
			list[0].Kind != kind || list[0].Drive != drive || list[0].Repaired || last["whole"] != false {
			t.Fatalf("got %v", broken)
		}
		administrator := s.checker()
		if r := administrator.mediafs(t, "check", "--store", administrator.address); r.code != 1 || !strings.HasSuffix(r.stdout, ": found: "+kind+" 1\n") {
			t.Errorf("got %v", r)
		}
		repaired := s.checker().mediafs(t, "check", "--store", s.address, "--repair")
		if out := repaired.ok(t); !strings.Contains(out, kind+": ") || !strings.Contains(out, " (repaired)\n") ||
			!strings.HasSuffix(out, ": whole now, repaired: "+kind+" 1\n") {
			t.Errorf("got %v", repaired)
		}
		s.isWhole(t)
		for _, u := range []user{alice, bob} {
			m := s.mount(t, u)
			file := "file"
			if u.name == "alice" && s.kind == postgres {
				file = "lost+found/ino-*"
			}
			if got := s.person.shell(t, m.path(), "cat "+file+" folder/below").ok(t); got != u.name+"\nbelow\n" {
				t.Errorf("%s: got %q", u.name, got)
			}
		}
	})
}

func TestCheckIsInterrupted(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	conn := s.connect(t)
	_, err := conn.Exec(context.Background(), "begin; lock table mediafs.nodes")
	check(t, err)
	path, err := program()
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := s.person.command(ctx, s.dir, path, "check", "--store", s.address)
	var said bytes.Buffer
	cmd.Stderr = &said
	check(t, cmd.Start())
	for other := s.connect(t); ; { // until it waits for the lock
		if number(t, other, "select count(*) from pg_locks where not granted and relation = 'mediafs.nodes'::regclass") > 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("it does not look at the nodes")
		}
	}
	check(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("got %v, %q", err, said.String())
	}
}

func TestCheckNeedsALoginThatSeesAll(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	s.addUser(t, "alice")
	r := s.withLogin(t, "check_mount").mediafs(t, "check", "--store", s.withLogin(t, "check_mount").address)
	if r.code != 5 || !strings.Contains(r.stderr, "BYPASSRLS") || strings.Contains(r.stdout, "whole") {
		t.Errorf("a mounting login: got %v", r)
	}
	if r := s.mediafs(t, "check", "--store", s.databaseNamed(t, "postgres")); r.code != 4 {
		t.Errorf("no store: got %v", r)
	}
}
