package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore/pgstore/pgtest"
)

// password stands in every place of a database's address that takes one.
const password = "geheim-9f2c-wort"

// withPassword is the store with a password in its address. The server of the tests asks for none.
func (s *store) withPassword(t *testing.T) *store {
	t.Helper()
	other := *s
	if s.kind == postgres {
		u, err := url.Parse(s.address)
		check(t, err)
		query := u.Query()
		query.Set("password", password)
		u.RawQuery = query.Encode()
		other.address = u.String()
	}
	return &other
}

// shows fails the test if one of the secrets is in a text.
func shows(t *testing.T, where, text string, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s shows a secret: …%s", where, text[max(0, i-80):i+len(secret)])
		}
	}
}

// A mount keeps its token and its store's password to itself: what it prints, logs, answers and writes has none in it, and to
// other processes of its user, who may send it signals, its memory and its environment are closed.
func TestAMountKeepsItsSecrets(t *testing.T) {
	asEveryone(t, func(t *testing.T, s *store) {
		s = s.withPassword(t)
		alice, bob := s.addUser(t, "alice"), s.addUser(t, "bob")
		secrets := []string{alice.token(t), bob.token(t), password}
		path, err := program()
		check(t, err)
		if s.person.home == "" {
			s.person.home = tempDir(t)
		}
		tmp := filepath.Join(s.dir, "tmp")
		check(t, os.Mkdir(tmp, 0o700))
		give(t, s.person, tmp)
		daemon, front := s.mountpoint(t), s.mountpoint(t)
		// Everything by the environment, so that ps of these very commands shows nothing; the most that can be logged; the most
		// that the Go runtime would write of a crash.
		environment := "export TMPDIR=" + tmp + " GOTRACEBACK=crash MEDIAFS_STORE='" + s.address + "'; ulimit -c unlimited; "
		s.person.shell(t, s.dir, environment+"MEDIAFS_TOKEN=$(cat alice.token) "+path+" mount --log-level debug --daemon "+daemon).ok(t)
		t.Cleanup(func() {
			if isMounted(t, daemon) {
				s.mediafs(t, "umount", daemon).ok(t)
			}
		})
		wrapper := filepath.Join(s.dir, "front")
		writeProgram(t, wrapper, "#!/bin/bash\n"+environment+"export MEDIAFS_TOKEN=$(cat bob.token); exec "+path+" mount --log-level debug "+front+"\n")
		m := s.mountWith(t, wrapper, bob, front)
		for _, point := range []string{daemon, front} {
			s.person.shell(t, point, "echo x >f; cat f; mkdir d; mv f d; ! cat none 2>/dev/null; ! mkdir d 2>/dev/null; df . >/dev/null").ok(t)
		}

		pids := map[string]int{"the daemon": s.status(t, daemon).PID, "the foreground": m.cmd.Process.Pid}
		for who, pid := range pids {
			process := fmt.Sprintf("/proc/%d/", pid)
			shows(t, "ps of "+who, readFile(t, process+"cmdline"), secrets)
			shows(t, "the mounts of "+who, readFile(t, process+"mounts"), secrets)
			for line := range strings.Lines(readFile(t, process+"limits")) {
				if fields := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (fields[4] != "0" || fields[5] != "0") {
					t.Errorf("%s may dump a core: %s", who, line)
				}
			}
			if s.person.uid != 0 {
				for _, file := range []string{"environ", "mem", "maps", "fd/0"} {
					r := s.person.run(t, "/", "head", "-c1", process+file)
					if r.code == 0 || !strings.Contains(r.stderr, "Permission denied") {
						t.Errorf("its user reads %s of %s: %v", file, who, r)
					}
				}
				r := s.person.run(t, "/", "strace", "-p", fmt.Sprint(pid))
				if r.code == 0 || !strings.Contains(r.stderr, "Operation not permitted") {
					t.Errorf("its user traces %s: %v", who, r)
				}
			}
		}
		// The token in the environment of a foreground mount is there until it ends, for root alone. A daemon was given none.
		if os.Geteuid() == 0 {
			shows(t, "the daemon's environment", readFile(t, fmt.Sprintf("/proc/%d/environ", pids["the daemon"])), secrets)
		}
		for _, args := range [][]string{{"status"}, {"status", "--json"}, {"umount", s.dir}, {"mount", "--store", "/nowhere", daemon}} {
			r := s.mediafs(t, args...)
			shows(t, r.command, r.stdout+r.stderr, secrets)
		}
		s.controlKeeps(t, filepath.Join(s.person.home, "mediafs"), secrets)
		s.mediafs(t, "umount", daemon).ok(t)

		// Killed as for a core dump, it leaves none, and says nothing of them.
		check(t, unix.Kill(pids["the foreground"], unix.SIGABRT))
		<-m.ended
		m.clear(t)
		shows(t, "the log of the foreground", m.stderr.String(), secrets)
		if !strings.Contains(m.stderr.String(), "SIGABRT") {
			t.Errorf("it was not killed by the signal: %s", m.stderr)
		}
		own := []string{"alice.token", "bob.token", "front"}
		if n := s.filesKeep(t, s.dir, own, secrets) + s.filesKeep(t, s.person.home, own, secrets); n == 0 {
			t.Error("there is not one file, not even the daemon's log: the test shows nothing")
		}
	})
}

// controlKeeps asks the mounts all that the control sockets in a folder take, and what they don't.
func (s *store) controlKeeps(t *testing.T, dir string, secrets []string) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	check(t, err)
	if len(sockets) != 2 {
		t.Fatalf("there are %d sockets in %s, want 2", len(sockets), dir)
	}
	for _, socket := range sockets {
		for _, request := range []string{
			"GET /status", "POST /status", "GET /unmount", "GET /", "GET /debug/vars", "GET /../../etc/passwd", "BREW /status",
		} {
			conn, err := net.DialTimeout("unix", socket, deadline)
			check(t, err)
			check(t, conn.SetDeadline(time.Now().Add(deadline)))
			_, err = fmt.Fprintf(conn, "%s HTTP/1.0\r\n\r\n", request)
			check(t, err)
			var answer bytes.Buffer
			_, err = answer.ReadFrom(conn)
			check(t, errors.Join(err, conn.Close()))
			if !strings.HasPrefix(answer.String(), "HTTP/1.0 ") {
				t.Errorf("%s is answered with %q", request, answer.String())
			}
			shows(t, request, answer.String(), secrets)
		}
	}
	// Nobody but the user, and root, gets to ask.
	if os.Geteuid() == 0 {
		person{uid: 65533, gid: 65533}.on(t, func() {
			for _, socket := range sockets {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); !errors.Is(err, unix.EACCES) {
					t.Errorf("another user connects: %v, want EACCES", err)
				}
				if err := unix.Close(fd); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// filesKeep looks for secrets in all files below a folder but those of the test's own, and for files that others may read where
// there should be none. It returns how many it has looked at.
func (s *store) filesKeep(t *testing.T, dir string, own, secrets []string) (files int) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || slices.Contains(own, entry.Name()) {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		private := strings.Contains(path, "/.mediafs") || strings.HasPrefix(path, filepath.Join(s.person.home, "mediafs"))
		if private && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.Contains(entry.Name(), "core") {
			t.Errorf("%s was left behind", path)
		}
		if info.Mode().IsRegular() {
			files++
			shows(t, path, readFile(t, path), secrets)
		}
		return nil
	}))
	return files
}

// Whatever is wrong, the error does not repeat what was secret in it.
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	token := alice.token(t)
	almost := []string{
		token + "x", token[:len(token)-1], "Bearer " + token, token + "." + token, strings.ToUpper(token), "mfs_" + token, token + "\n" + token,
	}
	socket, err := url.Parse(s.database)
	check(t, err)
	host := socket.Query().Get("host")
	secrets := []string{token, token[4:], password, url.QueryEscape(password), "geheim"}
	point := s.mountpoint(t)
	path, err := program()
	check(t, err)
	say := func(environment []string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		cmd := s.person.command(ctx, s.dir, append([]string{path}, args...)...)
		cmd.Env = append(cmd.Env, environment...)
		r := finish(t, ctx, cmd)
		if r.code == 0 {
			t.Errorf("it works: %v", r)
		}
		shows(t, strings.Join(args, " "), r.stdout+r.stderr, secrets)
	}
	for _, address := range []string{
		"postgres://app:" + password + "@127.0.0.1:1/db", "postgres://app@127.0.0.1:1/db?password=" + password,
		"postgres://app:" + password + "@127.0.0.1:1/db?password=" + password + "&sslmode=nonsense", "postgres://app:" + password + "@host:port/db",
		"postgres://app:" + password + "%zz@127.0.0.1:1/db", "postgres:app:" + password + "@127.0.0.1/db",
		"postgres://app:" + password + "@/nowhere?host=" + host,
		"postgres://nobody:" + password + "@/postgres?host=" + host, "postgres://:" + password + "@[::1/db", "mysql://root:" + password + "@localhost/db",
		"postgresql://app:" + password + "@127.0.0.1:1/db?connect_timeout=x",
		"postgres://app@127.0.0.1:1/db?sslkey=/nowhere&sslcert=/nowhere&sslpassword=" + password,
		"file://app:" + password + "@host/x", "https://app:" + password + "@example.org",
	} {
		for _, command := range [][]string{
			{"init"}, {"user", "list"}, {"user", "add", "carol"},
			{"mount", "--token-file", alice.tokenFile, point}, {"mount", "--daemon", "--token-file", alice.tokenFile, point},
		} {
			say([]string{"MEDIAFS_STORE=" + address}, command...)
		}
		say(nil, "user", "list", "--store", address)
	}
	say([]string{"PGPASSWORD=" + password}, "user", "list", "--store", "postgres://app@127.0.0.1:1/db")
	say([]string{"PGPASSWORD=" + password, "PGSSLMODE=nonsense"}, "mount", "--store", "postgres://app@127.0.0.1:1/db", "--token-file", alice.tokenFile, point)
	for i, text := range almost {
		file := s.saveToken(t, fmt.Sprint("almost", i), text)
		say(nil, "mount", "--store", s.address, "--token-file", file, point)
		say([]string{"MEDIAFS_TOKEN=" + text}, "mount", "--store", s.address, point)
		say([]string{"MEDIAFS_TOKEN=" + text}, "mount", "--store", s.address, "--daemon", point)
	}
	// The token's file, or the token itself, where something else belongs.
	say(nil, "mount", "--store", alice.tokenFile, "--token-file", alice.tokenFile, point)
	say(nil, "user", "list", "--store", alice.tokenFile)
	say(nil, "init", "--store", s.address, "--auth-tables", alice.tokenFile)
	say([]string{"MEDIAFS_TOKEN=" + token}, "mount", "--store", alice.tokenFile, point)
	say(nil, "mount", "--store", s.address, "--token-file", s.root+"/nowhere", point, token)
	say(nil, "umount", s.dir+"/nowhere", token)
	say([]string{"MEDIAFS_AUTH=https://app:" + password + "@example.org"}, "mount", "--store", s.dir, "--token-file", alice.tokenFile, point)
	say(nil, "login", "https://app:"+password+"@example.org")
}

// The server's log has no token, however much it logs, once `mediafs init` was run by a superuser, nor has what it shows of
// those who are connected. The text of statements has none in any case.
func TestTheDatabasesLogHasNoToken(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	super := s.connect(t)
	exec := func(sql string) {
		t.Helper()
		_, err := super.Exec(context.Background(), sql)
		check(t, err)
	}
	for _, setting := range []string{
		"log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = 'debug5'",
		"log_parameter_max_length = -1", "log_parameter_max_length_on_error = -1", "log_error_verbosity = 'verbose'",
		"track_activity_query_size = '64kB'",
	} {
		exec("ALTER SYSTEM SET " + setting)
	}
	check(t, super.Close(context.Background()))
	check(t, cluster.Restart())
	super = s.connect(t)
	s.mediafs(t, "init", "--store", s.address).ok(t)
	alice := s.addUser(t, "alice")
	app := s.withLogin(t, "application")
	simple := *app
	simple.address += "&default_query_exec_mode=simple_protocol"
	wrong := s.saveToken(t, "wrong", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	secrets := []string{alice.token(t), "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
	const statement = "set_config('mediafs.token', $1, true)"
	logged := func(what string) {
		t.Helper()
		text := cluster.Log()
		if !strings.Contains(text, statement) {
			t.Errorf("%s: the log does not have the statement with the token: the test shows nothing", what)
		}
		shows(t, "the server's log of "+what, text, secrets)
	}
	for what, store := range map[string]*store{"a superuser": s, "the login of mounts": app, "the simple protocol": &simple} {
		m := store.mount(t, alice)
		logged(what + ", mounting")
		store.person.shell(t, m.point, "mkdir "+strings.ReplaceAll(what, " ", "-")+"; ! mkdir none/none 2>/dev/null").ok(t)
		logged(what + ", working")
		var activity string
		check(t, super.QueryRow(context.Background(), "SELECT string_agg(query, E'\\n') FROM pg_stat_activity").Scan(&activity))
		shows(t, "pg_stat_activity of "+what, activity, secrets)
		m.unmount(t)
		complains(t, store.mediafs(t, "mount", "--store", store.address, "--token-file", wrong, store.mountpoint(t)), codeToken)
		shows(t, "the server's log of "+what+", refused", cluster.Log(), secrets)
	}
	// Of tokens that are ours the database has the hash alone.
	var stored string
	check(t, super.QueryRow(context.Background(), "SELECT string_agg(a::text, ' ') FROM mediafs.accounts a").Scan(&stored))
	shows(t, "the table of accounts", stored, []string{alice.token(t), alice.token(t)[4:]})
	if !strings.Contains(stored, fmt.Sprintf("%x", sha256.Sum256([]byte(alice.token(t))))) {
		t.Errorf("the hash of the token is not in the table: %s", stored)
	}
	// Without the right, as before Postgres 15, the administrator has the say: by the login's own setting, or the server's.
	exec("REVOKE SET ON PARAMETER log_parameter_max_length FROM mediafs")
	exec("ALTER ROLE application SET log_parameter_max_length = 0")
	m := app.mount(t, alice)
	app.person.shell(t, m.point, "mkdir unseen").ok(t)
	logged("a login with a setting of its own")
	m.unmount(t)
	exec("ALTER ROLE application RESET ALL")
	m = app.mount(t, alice)
	app.person.shell(t, m.point, "mkdir seen").ok(t)
	if !strings.Contains(cluster.Log(), alice.token(t)) {
		t.Error("the token is not logged where nothing hides it: the test shows nothing")
	}
	m.unmount(t)
}
