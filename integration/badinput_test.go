package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mediafs/blobstore/pgstore/pgtest"
)

// The exit codes, as `mediafs help` lists them.
const (
	codeUsage      = 2
	codeAddress    = 3
	codeSchema     = 4
	codeAway       = 5
	codeToken      = 6
	codeUser       = 7
	codeMountpoint = 8
	codeFUSE       = 9
	codeNotStored  = 10
)

// complains fails the test unless the program said, in one line, what is wrong, with that code.
func complains(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	oneLine(t, r)
	if r.code != code {
		t.Errorf("exit code %d, want %d: %v", r.code, code, r)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("the error does not name %q: %v", word, r)
		}
	}
}

// oneLine fails the test unless the program told an error in one line.
func oneLine(t *testing.T, r result) {
	t.Helper()
	if r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "mediafs: ") {
		t.Errorf("want one line on stderr that begins with mediafs: %v", r)
	}
}

// A state is all that a command may change: the store, the mounts, and the person's folder.
type state []string

func (s *store) state(t *testing.T) state {
	t.Helper()
	var lines state
	check(t, filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			lines = append(lines, fmt.Sprintf("%s %v %d %v", path, info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	}))
	mounts, err := os.ReadFile("/proc/self/mounts")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, s.dir) {
			lines = append(lines, line)
		}
	}
	if s.kind == postgres {
		conn, err := connectTo(s.database)
		if err != nil {
			return append(lines, "no database")
		}
		defer conn.Close(context.Background())
		var digest string
		// The rows of each table with their versions. A mount that is alive keeps saying so in mediafs.mounts.
		const query = `SELECT coalesce(string_agg(oid::regclass || ' ' || md5(query_to_xml('SELECT xmin, xmax, ctid, t.* FROM ' ||
				oid::regclass || ' t ORDER BY ctid', true, true, '')::text), E'\n' ORDER BY oid), '')
			FROM pg_class WHERE relkind = 'r' AND relname <> 'mounts' AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('mediafs', 'public'))`
		check(t, conn.QueryRow(context.Background(), query).Scan(&digest))
		lines = append(lines, digest)
	}
	return lines
}

// changesNothing runs something that is refused and fails the test if anything is different afterwards.
func (s *store) changesNothing(t *testing.T, refused func()) {
	t.Helper()
	before := s.state(t)
	refused()
	if after := s.state(t); !slices.Equal(before, after) {
		t.Errorf("something has changed; before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func TestABadStoreAddressIsRefused(t *testing.T) {
	t.Parallel()
	s := bareStore(t, folder, person{})
	token := s.saveToken(t, "alice", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	point := s.mountpoint(t)
	for _, test := range []struct{ address, named string }{
		{"ftp://media.example.org/drives", "ftp"},
		{"s3://bucket", "s3"},
		{"mysql://root:geheim@localhost/db", "mysql"},
		{"file://otherhost/srv/media", "otherhost"},
		{"postgres://user:geheim%zz@localhost/db", "postgres"},
	} {
		s.changesNothing(t, func() {
			for _, command := range [][]string{
				{"init", "--store", test.address},
				{"user", "add", "--store", test.address, "bob"},
				{"mount", "--store", test.address, "--token-file", token, point},
			} {
				r := s.mediafs(t, command...)
				complains(t, r, codeAddress, test.named)
				if strings.Contains(r.stderr, "geheim") {
					t.Errorf("the password is in the error: %v", r)
				}
			}
		})
	}
	s.changesNothing(t, func() {
		complains(t, s.mediafs(t, "mount", "--token-file", token, point), codeUsage, "--store", "MEDIAFS_STORE")
	})
}

func TestAStoreThatIsNoneIsRefused(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s := bareStore(t, k, person{})
		token := s.saveToken(t, "alice", "mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		point := s.mountpoint(t)
		s.changesNothing(t, func() {
			complains(t, s.mediafs(t, "user", "add", "--store", s.address, "alice"), codeSchema, "mediafs init")
			complains(t, s.mediafs(t, "user", "list", "--store", s.address), codeSchema, "mediafs init")
			complains(t, s.mediafs(t, "mount", "--store", s.address, "--token-file", token, point), codeSchema, "mediafs init")
		})
	})
}

func TestAFolderThatCannotBeWrittenIsRefused(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	s := newStore(t, folder, person{}) // root's
	alice := s.addUser(t, "alice")
	s.mount(t, alice).unmount(t)
	user := *s
	user.person = nobody(t)
	user.dir = user.person.home
	token := user.saveToken(t, "alice", alice.token(t))
	locked := filepath.Join(s.dir, "locked")
	check(t, os.Mkdir(locked, 0o755))
	point := user.mountpoint(t)
	s.changesNothing(t, func() {
		complains(t, user.mediafs(t, "init", "--store", filepath.Join(locked, "store")), codeAway, locked)
		complains(t, user.mediafs(t, "user", "add", "--store", s.root, "carol"), codeAway, s.root)
		complains(t, user.mediafs(t, "mount", "--store", s.root, "--token-file", token, point), codeAway, s.root)
	})
}

func TestADatabaseThatIsDownIsRefused(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	s := bareStore(t, postgres, person{})
	s.database = cluster.URL("postgres")
	s.address = s.database
	s.mediafs(t, "init", "--store", s.address).ok(t)
	alice := s.addUser(t, "alice")
	point := s.mountpoint(t)
	check(t, cluster.Stop(pgtest.Fast))
	s.changesNothing(t, func() {
		for _, command := range [][]string{
			{"init", "--store", s.address},
			{"user", "list", "--store", s.address},
			{"mount", "--store", s.address, "--token-file", alice.tokenFile, point},
			{"mount", "--daemon", "--store", s.address, "--token-file", alice.tokenFile, point},
		} {
			complains(t, s.mediafs(t, command...), codeAway, "start the database")
		}
	})
	check(t, cluster.Start())
	complains(t, s.mediafs(t, "init", "--store", s.databaseNamed(t, "nowhere")), codeAway, "nowhere")
}

func TestADatabaseOfANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	s := newStore(t, postgres, person{})
	alice := s.addUser(t, "alice")
	point := s.mountpoint(t)
	_, err := s.connect(t).Exec(context.Background(), "UPDATE mediafs.schema_version SET version = version + 1")
	check(t, err)
	s.changesNothing(t, func() {
		for _, command := range [][]string{
			{"init", "--store", s.address},
			{"user", "add", "--store", s.address, "bob"},
			{"mount", "--store", s.address, "--token-file", alice.tokenFile, point},
		} {
			complains(t, s.mediafs(t, command...), codeSchema, "newer")
		}
	})
}

func TestAWrongTokenIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		point := s.mountpoint(t)
		old := alice.token(t)
		renewed := s.mediafs(t, "user", "token", "--store", s.address, "alice").ok(t)
		for _, token := range []string{
			old, // the one before is worth nothing
			"mfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
			strings.TrimSpace(renewed) + "x",
			"bjXqgDrvYvNCyvQgbEmjPvKZ8HmNjMGf", // like one of Better Auth
			"", "  \n", "two words", "\x00", strings.Repeat("long", 5000),
			"'; DROP TABLE mediafs.nodes; --",
		} {
			file := s.saveToken(t, "wrong", token)
			s.changesNothing(t, func() {
				r := s.mediafs(t, "mount", "--store", s.address, "--token-file", file, point)
				complains(t, r, codeToken)
				if secret := strings.TrimSpace(token); len(secret) > 20 && strings.Contains(r.stderr, secret[:20]) {
					t.Errorf("the token is in the error: %v", r)
				}
			})
		}
		s.changesNothing(t, func() {
			complains(t, s.mediafs(t, "mount", "--store", s.address, point), codeToken, "--token-file", "MEDIAFS_TOKEN")
			r := s.mediafs(t, "mount", "--store", s.address, "--token-file", s.dir+"/no such file", point)
			complains(t, r, codeToken, "no such file")
		})
	})
}

// The sessions of a web application on the same database: its tables are Better Auth's.
func TestASessionOfTheApplicationThatIsOverIsRefused(t *testing.T) {
	t.Parallel()
	s := bareStore(t, postgres, person{})
	conn := s.connect(t)
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := conn.Exec(context.Background(), query, args...)
		check(t, err)
	}
	exec(`CREATE TABLE "user" (id text PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE,
		"emailVerified" boolean NOT NULL, image text, "createdAt" timestamptz NOT NULL DEFAULT now(),
		"updatedAt" timestamptz NOT NULL DEFAULT now(), role text, banned boolean, "banReason" text, "banExpires" timestamptz)`)
	exec(`CREATE TABLE "session" (id text PRIMARY KEY, "expiresAt" timestamptz NOT NULL, token text NOT NULL UNIQUE,
		"createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz NOT NULL DEFAULT now(), "ipAddress" text,
		"userAgent" text, "userId" text NOT NULL REFERENCES "user" ON DELETE CASCADE, "impersonatedBy" text)`)
	s.mediafs(t, "init", "--store", s.address).ok(t)
	signIn := func(id string, expires time.Duration, banned bool) user {
		t.Helper()
		exec(`INSERT INTO "user" (id, name, email, "emailVerified", banned) VALUES ($1, $1, $1, true, $2)`, id, banned)
		token := fmt.Sprintf("%032x", time.Now().UnixNano())
		exec(`INSERT INTO "session" (id, "expiresAt", token, "userId") VALUES ($1, now() + $2, $3, $1)`, id, expires, token)
		return user{id, s.saveToken(t, "session", token)}
	}
	point := s.mountpoint(t)
	for _, test := range []struct {
		id      string
		expires time.Duration
		banned  bool
		code    int
		word    string
	}{
		{"x1y2z3ofSomebodyWhoseTimeIsUp000", -time.Second, false, codeToken, "expired"},
		{"x1y2z3ofSomebodyWhoIsBanned00000", time.Hour, true, codeToken, "banned"},
		{"../../etc", time.Hour, false, codeUser, "user id"},
		{"a/b", time.Hour, false, codeUser, "user id"},
		{".hidden", time.Hour, false, codeUser, "user id"},
	} {
		u := signIn(test.id, test.expires, test.banned)
		s.changesNothing(t, func() {
			r := s.mediafs(t, "mount", "--store", s.address, "--token-file", u.tokenFile, point)
			complains(t, r, test.code, test.word)
		})
	}
	m := s.mountAt(t, signIn("x1y2z3ofSomebodyWhoIsSignedIn000", time.Hour, false), point)
	writeFile(t, m.path("file"), "theirs")
	m.unmount(t)
}

func TestAnUnsafeUserNameIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		s.addUser(t, "alice")
		for _, name := range []string{
			"", ".", "..", "../alice", "/etc", "a/b", ".hidden", "-dash", "a b", "a\nb", "ünï", "a\\b", "$(id)", "'", "public",
			strings.Repeat("x", 129),
		} {
			s.changesNothing(t, func() {
				complains(t, s.mediafs(t, "user", "add", "--store", s.address, "--", name), codeUser)
			})
		}
		s.changesNothing(t, func() {
			complains(t, s.mediafs(t, "user", "add", "--store", s.address, "alice"), codeUser, "alice")
			complains(t, s.mediafs(t, "user", "token", "--store", s.address, "bob"), codeUser, "bob")
			complains(t, s.mediafs(t, "user", "remove", "--store", s.address, "bob"), codeUser, "bob")
			complains(t, s.mediafs(t, "user", "add", "--store", s.address, "--role", "king", "bob"), codeUsage, "king", "admin")
		})
		for _, name := range []string{"Alice", "a.b-c_d@e+f=g", strings.Repeat("x", 128)} {
			s.addUser(t, name)
		}
	})
}

func TestABadMountpointIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		mountAt := func(point string) result {
			return s.mediafs(t, "mount", "--store", s.address, "--token-file", alice.tokenFile, point)
		}
		file := filepath.Join(s.dir, "file")
		writeFile(t, file, "not a folder")
		full := s.mountpoint(t)
		writeFile(t, filepath.Join(full, "here first"), "")
		link := filepath.Join(s.dir, "dangling")
		check(t, os.Symlink("nowhere", link))
		s.changesNothing(t, func() {
			for _, point := range []string{s.dir + "/missing", file, file + "/below", full, link} {
				complains(t, mountAt(point), codeMountpoint, point)
			}
			complains(t, s.mediafs(t, "umount", full), codeMountpoint, full)
			complains(t, s.mediafs(t, "umount", s.dir+"/missing"), codeMountpoint, s.dir+"/missing")
		})
		m := s.mount(t, alice)
		s.changesNothing(t, func() { complains(t, mountAt(m.point), codeMountpoint, m.point, "mounted") })
		m.unmount(t)
		if os.Geteuid() != 0 {
			return
		}
		busy := s.mountpoint(t)
		smallDisk(t, busy, "size=1M")
		s.changesNothing(t, func() { complains(t, mountAt(busy), codeMountpoint, busy) })
	})
}

// smallDisk mounts a file system in memory on a folder, for as long as the test.
func smallDisk(t *testing.T, dir, options string) {
	t.Helper()
	person{}.run(t, "/", "mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).ok(t)
	t.Cleanup(func() { person{}.run(t, "/", "umount", dir).ok(t) })
}

func TestAMachineWithoutFUSEIsNamed(t *testing.T) {
	requireRoot(t)
	onEachStore(t, func(t *testing.T, s *store) {
		alice := s.addUser(t, "alice")
		point := s.mountpoint(t)
		path, err := program()
		check(t, err)
		// In a mount namespace of its own /dev is another.
		script := `mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9
			exec "$@"`
		s.changesNothing(t, func() {
			r := s.person.run(t, "/", "unshare", "--mount", "bash", "-euc", script, "bash",
				path, "mount", "--store", s.address, "--token-file", alice.tokenFile, point)
			complains(t, r, codeFUSE, "/dev/fuse")
		})
	})
}

func TestAUserWhoMayNotMountIsTold(t *testing.T) {
	requireRoot(t)
	onEachKind(t, func(t *testing.T, k kind) {
		s := newStore(t, k, nobody(t))
		alice := s.addUser(t, "alice")
		path, err := program()
		check(t, err)
		point := s.mountpoint(t)
		root := person{home: s.person.home}
		mount := []string{path, "mount", "--store", s.address, "--token-file", alice.tokenFile, point}

		// A folder that is not the user's.
		rootsOwn := tempDir(t)
		s.changesNothing(t, func() {
			r := s.person.run(t, "/", append(slices.Clone(mount[:len(mount)-1]), rootsOwn)...)
			complains(t, r, codeFUSE, rootsOwn)
		})
		// No helper that mounts for users.
		s.changesNothing(t, func() {
			r := s.person.run(t, "/", append([]string{"/usr/bin/env", "PATH=/nowhere"}, mount...)...)
			complains(t, r, codeFUSE, "fusermount3", "fuse3")
		})
		// The device is closed to users.
		s.changesNothing(t, func() {
			script := `mount -t tmpfs tmpfs /mnt; mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse
				exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`
			r := root.run(t, "/", append([]string{"unshare", "--mount", "bash", "-euc", script, "bash"}, mount...)...)
			complains(t, r, codeFUSE, "/dev/fuse")
		})
	})
}
