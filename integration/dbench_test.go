package integration

import (
	"regexp"
	"strconv"
	"testing"
)

// Four of dbench's clients repeat what a file server was once asked, with extended attributes. It says which answers
// are not those that the server gave. What it leaves is removed, and then the drive holds nothing.
func TestDbenchGetsTheAnswersOfAFileServer(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		m := s.mount(t, s.addUser(t, "alice"))
		r := s.person.run(t, m.point, "dbench", "-c", "/usr/share/dbench/client.txt", "-x", "-t", strconv.Itoa(size(8, 300)), "4")
		if throughput := regexp.MustCompile(`(?m)^Throughput [0-9.]*[1-9][0-9.]* .*4 procs.*`).FindString(r.ok(t)); throughput != "" {
			t.Log(throughput)
		} else {
			t.Errorf("dbench says nothing of what its four clients did: %v", r)
		}
		if complaint := regexp.MustCompile(`(?mi)^.*(failed|error|expected).*`).FindString(r.stdout + r.stderr); complaint != "" {
			t.Errorf("dbench says: %s\n%v", complaint, r)
		}
		s.person.run(t, m.point, "rm", "-r", "clients").ok(t)
		m.unmount(t)
		s.isEmpty(t)
	})
}
