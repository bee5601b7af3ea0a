package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// auditLine is a record as `mediafs audit --json` prints it.
type auditLine struct {
	Time, Action, Path, NewPath, Result, Drive, User, Host, Mount string
	Bytes                                                         int64
	Count                                                         int
}

// audit reads the log as the program shows it.
func (s *store) audit(t testing.TB, options ...string) (lines []auditLine) {
	t.Helper()
	out := s.mediafs(t, append([]string{"audit", "--store", s.address, "--json"}, options...)...).ok(t)
	for line := range strings.Lines(out) {
		var l auditLine
		check(t, json.Unmarshal([]byte(line), &l))
		lines = append(lines, l)
	}
	return lines
}

// has says whether the log has a record of an action with that result; of any path if path is "*".
func has(lines []auditLine, user, action, path, result string) bool {
	return slices.ContainsFunc(lines, func(l auditLine) bool {
		return l.User == user && l.Action == action && (l.Path == path || path == "*") && l.Result == result && l.Host != "" && l.Mount != "" && l.Time != ""
	})
}

func TestTheAuditLogTellsWhoDidWhat(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice, bob, ada := s.addUser(t, "alice"), s.addUser(t, "bob"), s.addUser(t, "ada", "--role", "admin")
		hers, his, all := s.mount(t, alice), s.mount(t, bob), s.mount(t, ada)
		s.person.shell(t, hers.point, `
			mkdir folder; echo written >folder/file; cat folder/file folder/file; chmod 600 folder/file
			mv folder/file folder/renamed; ln folder/renamed link; rm link; mkdir $'line\nfeed'`).ok(t)
		s.person.shell(t, his.point, "echo of bob >secret").ok(t)
		s.person.shell(t, all.point, "cat alice/folder/renamed; echo x >public/shared").ok(t)
		guest := s.guest(t)
		s.person.shell(t, guest.point, "cat shared; ! touch denied").ok(t)

		waitUntil(t, "alice's log tells all of it", func() bool {
			log := s.audit(t, "--token-file", alice.tokenFile)
			return has(log, "alice", "mount", "", "ok") && has(log, "alice", "create", "/folder", "ok") && has(log, "alice", "create", "/folder/file", "ok") &&
				has(log, "alice", "write", "/folder/file", "ok") && has(log, "alice", "open", "/folder/file", "ok") && has(log, "alice", "change", "/folder/file", "ok") &&
				has(log, "alice", "rename", "/folder/file", "ok") && has(log, "alice", "link", "/folder/renamed", "ok") && has(log, "alice", "remove", "/link", "ok") &&
				has(log, "ada", "open", "/folder/renamed", "ok") && has(log, "alice", "create", "/line\nfeed", "ok")
		})
		for _, l := range s.audit(t, "--token-file", alice.tokenFile) {
			if l.Drive != "alice" || strings.Contains(l.Path, "secret") {
				t.Errorf("alice sees %+v", l)
			}
		}
		waitUntil(t, "the admin's log tells of all", func() bool {
			log := s.audit(t, "--token-file", ada.tokenFile)
			return has(log, "bob", "create", "/secret", "ok") && has(log, "alice", "create", "/folder", "ok") && has(log, "", "open", "/shared", "ok")
		})
		if s.kind == postgres && os.Geteuid() == 0 { // an administrator of the database needs no token
			if log := s.audit(t, "--user", "bob"); !has(log, "bob", "create", "/secret", "ok") || has(log, "alice", "create", "/folder", "ok") {
				t.Errorf("of bob: %+v", log)
			}
		}
		waitUntil(t, "an attribute tells how often it was opened", func() bool {
			r := s.person.run(t, hers.point, "getfattr", "--only-values", "-n", "user.mediafs.access_count", "folder/renamed")
			return r.code == 0 && r.stdout >= "3"
		})
		s.person.run(t, hers.point, "getfattr", "-n", "user.mediafs.last_accessed", "folder/renamed").ok(t)

		// The end of a session, and what is denied after it; also when the program is killed a moment later.
		s.mediafs(t, "user", "token", "--store", s.address, "bob").ok(t)
		waitUntil(t, "bob is shut out", func() bool { return stat(his.path("secret")) != nil })
		waitUntil(t, "that is in the log", func() bool {
			log := s.audit(t, "--token-file", ada.tokenFile, "--user", "bob")
			return has(log, "bob", "session", "", "EKEYREVOKED") && has(log, "bob", "look", "*", "EKEYREVOKED")
		})
		his.kill(t)
		his.clear(t)
		denied := s.audit(t, "--token-file", ada.tokenFile, "--denied")
		for _, l := range denied {
			if l.Result == "ok" {
				t.Errorf("among what was denied: %+v", l)
			}
		}
		if !has(denied, "bob", "look", "*", "EKEYREVOKED") {
			t.Errorf("what was denied: %+v", denied)
		}
		if log := s.audit(t, "--token-file", ada.tokenFile, "--path", "/folder", "--since", "1h"); !has(log, "alice", "create", "/folder", "ok") || has(log, "bob", "create", "/secret", "ok") {
			t.Errorf("of /folder: %+v", log)
		}
		if log := s.audit(t, "--token-file", ada.tokenFile, "--since", "2100-01-01"); len(log) != 0 {
			t.Errorf("of the future: %+v", log)
		}
		table := s.mediafs(t, "audit", "--store", s.address, "--token-file", alice.tokenFile).ok(t)
		if !strings.HasPrefix(table, "TIME") || !strings.Contains(table, `"/line\nfeed"`) || strings.Count(table, "\n") < 10 {
			t.Errorf("the table is\n%s", table)
		}
		if r := s.mediafs(t, "audit", "--store", s.address, "--since", "yesterday"); r.code != 2 || !strings.Contains(r.stderr, "yesterday") {
			t.Error(fmt.Sprint(r))
		}
	})
}
