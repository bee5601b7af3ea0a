package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore/pgstore/pgtest"
)

// The application of these tests is the folder betterauth: the real Better Auth, on Node, on a database of the test's.

// errNoNode is a machine without Node, or without a way to Better Auth's packages.
var errNoNode = errors.New("the packages of Better Auth can't be installed")

// installed is the application with its packages, in a copy: the folder itself stays as it is.
var installed = sync.OnceValues(func() (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w: %w (apt-get install nodejs npm)", errNoNode, err)
		}
	}
	dir := filepath.Join(work, "betterauth")
	if err := os.CopyFS(dir, os.DirFS("betterauth")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--logs-max=0", "--update-notifier=false")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NODE_DISABLE_COMPILE_CACHE=1") // which would stay in the folder for temporary files
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: npm ci: %w\n%s", errNoNode, err, out)
	}
	return dir, nil
})

// Who installs has a registry of their own: packages are named by version and hash, not by an address.
func TestTheApplicationsPackagesArePinnedWithoutAddresses(t *testing.T) {
	t.Parallel()
	var wanted struct{ Dependencies map[string]string }
	check(t, json.Unmarshal([]byte(readFile(t, filepath.Join("betterauth", "package.json"))), &wanted))
	text := readFile(t, filepath.Join("betterauth", "package-lock.json"))
	if strings.Contains(text, `"resolved"`) {
		t.Error("the lock file says where packages are downloaded from")
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	check(t, json.Unmarshal([]byte(text), &lock))
	for path, p := range lock.Packages {
		if path != "" && !strings.HasPrefix(p.Integrity, "sha512-") {
			t.Errorf("%s has the hash %q", path, p.Integrity)
		}
	}
	for name, version := range wanted.Dependencies {
		if got := lock.Packages["node_modules/"+name].Version; got != version {
			t.Errorf("%s is locked at %q, and wanted as %q: name one version", name, got, version)
		}
	}
}

// settings are those of the application: see betterauth/server.mjs.
type settings struct {
	IDs       string            `json:"ids,omitempty"`
	Columns   string            `json:"columns,omitempty"`
	Tables    map[string]string `json:"tables,omitempty"`
	Schema    string            `json:"schema,omitempty"`
	Elsewhere bool              `json:"elsewhere,omitempty"`
	Device    map[string]string `json:"device,omitempty"`
}

// An application is a web application that signs people in.
type application struct {
	url  string
	stop func() // ends it; may be called again
}

// startApplication starts the application on a database. It ends with the test.
func startApplication(t *testing.T, database string, s settings) *application {
	t.Helper()
	dir, err := installed()
	if errors.Is(err, errNoNode) {
		missing(t, err.Error())
	}
	check(t, err)
	text, err := json.Marshal(s)
	check(t, err)
	cmd := exec.Command("node", "server.mjs")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "DATABASE_URL=" + database, "SETTINGS=" + string(text), "NODE_DISABLE_COMPILE_CACHE=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said := &output{}
	cmd.Stderr = said
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	a := &application{url: strings.TrimSpace(line), stop: sync.OnceFunc(func() {
		_ = stdin.Close() // it ends when there is nobody to talk to
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the application: %v\n%s", err, said)
		}
	})}
	t.Cleanup(a.stop)
	if err != nil {
		a.stop()
		t.Fatalf("the application does not start: %v\n%s", err, said)
	}
	return a
}

// A member is somebody who is signed in to the application, with a browser.
type member struct {
	id, name string
	browser  *http.Client
	origin   string

	raw    string // the token itself
	cookie string // the value of the session's cookie, as the browser has it: signed and URL-encoded
	signed string // the same, decoded
	bearer string // what the plugin bearer issues
}

// signUp makes an account of the application and signs it in.
func (a *application) signUp(t *testing.T, name string) *member {
	t.Helper()
	jar, err := cookiejar.New(nil)
	check(t, err)
	m := &member{name: name, browser: &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}, origin: a.url}
	var answer struct {
		Token string
		User  struct{ ID string }
	}
	response := m.post(t, "/sign-up/email", map[string]string{"name": name, "email": name + "@example.org", "password": "correct horse battery"}, &answer)
	m.id, m.raw, m.bearer = answer.User.ID, answer.Token, response.Header.Get("set-auth-token")
	for _, cookie := range response.Cookies() {
		if strings.HasSuffix(cookie.Name, "session_token") {
			m.cookie = cookie.Value
		}
	}
	m.signed, err = url.PathUnescape(m.cookie)
	check(t, err)
	if m.id == "" || m.raw == "" || m.bearer == "" || m.signed == m.cookie || !strings.HasPrefix(m.signed, m.raw+".") {
		t.Fatalf("signed up as %+v", m)
	}
	return m
}

// post sends what a page of the application would, and reads the answer.
func (m *member) post(t *testing.T, path string, question, answer any) *http.Response {
	t.Helper()
	body, err := json.Marshal(question)
	check(t, err)
	request, err := http.NewRequest(http.MethodPost, m.origin+"/api/auth"+path, bytes.NewReader(body))
	check(t, err)
	request.Header.Set("Content-Type", "application/json")
	return m.do(t, request, answer)
}

func (m *member) get(t *testing.T, path string, answer any) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, m.origin+"/api/auth"+path, http.NoBody)
	check(t, err)
	m.do(t, request, answer)
}

func (m *member) do(t *testing.T, request *http.Request, answer any) *http.Response {
	t.Helper()
	request.Header.Set("Origin", m.origin)
	response, err := m.browser.Do(request)
	check(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", request.Method, request.URL.Path, response.Status, body)
	}
	if answer != nil {
		check(t, json.Unmarshal(body, answer))
	}
	return response
}

// as is the member as a user of a store, with a form of the token.
func (s *store) as(t *testing.T, m *member, token string) user {
	t.Helper()
	return user{name: m.id, tokenFile: s.saveToken(t, m.name, token)}
}

// namingRenamed are the names of the application with renamed tables, as `mediafs init --auth-tables` takes them.
const namingRenamed = `{"schema": "web_app", "session": {"table": "user_sessions"}, "user": {"table": "people"}}`

var renamed = settings{IDs: "serial", Columns: "snake_case", Schema: "web_app", Tables: map[string]string{"user": "people", "session": "user_sessions"}}

func TestTheSessionsOfBetterAuthOpenDrivesInItsDatabase(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings settings
		zoneless string // the columns to be made timestamps without time zone, as Drizzle makes them
		names    string
	}{
		"as it makes its tables itself":          {},
		"uuids, snake_case, without a time zone": {settings{IDs: "uuid", Columns: "snake_case"}, `"session".expires_at "user".ban_expires`, ""},
		"serial ids, other tables, in a schema":  {renamed, "", namingRenamed},
		"serial ids, camelCase, without a zone":  {settings{IDs: "serial"}, `"session"."expiresAt" "user"."banExpires"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bareStore(t, postgres, person{})
			app := startApplication(t, s.database, c.settings)
			conn := s.connect(t)
			for _, column := range strings.Fields(c.zoneless) {
				table, column, _ := strings.Cut(column, ".")
				_, err := conn.Exec(context.Background(), fmt.Sprintf(
					"ALTER TABLE %s ALTER COLUMN %s TYPE timestamp USING %[2]s AT TIME ZONE 'UTC'", table, column))
				check(t, err)
			}
			args := []string{"init", "--store", s.address}
			if c.names != "" {
				path := filepath.Join(s.dir, "names.json")
				check(t, os.WriteFile(path, []byte(c.names), 0o600))
				args = append(args, "--auth-tables", path)
			}
			if out := s.mediafs(t, args...).ok(t); !strings.Contains(out, "sessions of the application are read from") {
				t.Errorf("init says %q", out)
			}
			s.drivesOfMembers(t, app)
		})
	}
}

func TestTheSessionsOfBetterAuthOpenDrivesOfFolders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]settings{
		"sessions in its database":           {},
		"serial ids, and sessions elsewhere": {IDs: "serial", Elsewhere: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, folder, person{})
			app := startApplication(t, pgtest.New(t), c)
			s.drivesOfMembers(t, app, "--auth", app.url)
		})
	}
}

// drivesOfMembers opens two people's drives, with every form in which a token comes.
func (s *store) drivesOfMembers(t *testing.T, app *application, options ...string) {
	t.Helper()
	anna, ben := app.signUp(t, "anna"), app.signUp(t, "ben")
	annas, bens := s.mount(t, s.as(t, anna, anna.raw), options...), s.mount(t, s.as(t, ben, ben.cookie), options...)
	if annas.line != "mounted "+anna.id+" at "+annas.point || bens.line != "mounted "+ben.id+" at "+bens.point {
		t.Errorf("printed %q and %q, want the users %s and %s", annas.line, bens.line, anna.id, ben.id)
	}
	annas.keepsSecret(t, anna.raw)
	bens.keepsSecret(t, ben.raw)
	writeFile(t, annas.path("of anna"), "hers")
	writeFile(t, bens.path("of ben"), "his")
	for m, want := range map[*mount]string{annas: "of anna\n", bens: "of ben\n"} {
		if got := s.person.run(t, m.point, "ls", "-A").ok(t); got != want {
			t.Errorf("got %q on the drive, want %q", got, want)
		}
	}
	annas.unmount(t)
	for form, token := range map[string]string{"signed": anna.signed, "cookie": anna.cookie, "bearer": anna.bearer} {
		m := s.mount(t, s.as(t, anna, token), options...)
		if got := readFile(t, m.path("of anna")); got != "hers" {
			t.Errorf("%s: read %q", form, got)
		}
		m.unmount(t)
	}
	bens.unmount(t)
}

// keepsSecret fails the test if something that others may see of a mount has its token in it.
func (m *mount) keepsSecret(t *testing.T, token string) {
	t.Helper()
	process := fmt.Sprintf("/proc/%d/", m.cmd.Process.Pid)
	for what, text := range map[string]string{
		"what ps shows": readFile(t, process+"cmdline"),
		"the log":       m.stderr.String(),
		"status":        m.s.mediafs(t, "status", "--json").ok(t),
		"the mounts":    readFile(t, process+"mounts"),
	} {
		if strings.Contains(text, token) {
			t.Errorf("%s has the token in it: %s", what, text)
		}
	}
}

// elsewhere is a token of an application with another secret, signed with that.
var elsewhere = func() string {
	token := "ElsewhereElsewhereElsewhere12345"
	signature := hmac.New(sha256.New, []byte("another secret"))
	signature.Write([]byte(token))
	return token + "." + base64.StdEncoding.EncodeToString(signature.Sum(nil))
}()

// newStoreOfApplication is a store of an application's people, and the application's database: a store in Postgres is there too, one
// of folders is not.
func newStoreOfApplication(t *testing.T, k kind) (*store, *application, *pgx.Conn) {
	t.Helper()
	s := bareStore(t, k, person{})
	database := s.database
	if k == folder {
		database = pgtest.New(t)
	}
	app := startApplication(t, database, settings{})
	s.mediafs(t, "init", "--store", s.address).ok(t)
	return s, app, connect(t, database)
}

func TestASessionThatHasEndedMountsNothing(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s, app, conn := newStoreOfApplication(t, k)
		change := func(sql string, m *member) {
			t.Helper()
			tag, err := conn.Exec(context.Background(), sql, m.id)
			check(t, err)
			if tag.RowsAffected() != 1 {
				t.Fatalf("%s: changed %d rows", sql, tag.RowsAffected())
			}
		}
		options := []string{"mount", "--store", s.address}
		if k == folder {
			options = append(options, "--auth", app.url)
		}
		refused := func(m *member, token string, words ...string) {
			t.Helper()
			point := s.mountpoint(t)
			r := s.mediafs(t, append(options, "--token-file", s.as(t, m, token).tokenFile, point)...)
			complains(t, r, codeToken, words...)
			if strings.Contains(r.stderr, m.raw) || isMounted(t, point) {
				t.Errorf("%v, mounted: %v", r, isMounted(t, point))
			}
		}
		const unknown = "the token is not known: sign in again"

		out := app.signUp(t, "out")
		refused(out, "A"+out.raw[1:]+"A", unknown) // too long by a letter
		if out.raw[0] != 'A' {
			refused(out, "A"+out.raw[1:], unknown)
		}
		refused(out, out.raw+"."+strings.Repeat("A", 10), unknown) // cut short
		refused(out, elsewhere, unknown)
		out.post(t, "/sign-out", struct{}{}, nil)
		refused(out, out.cookie, unknown)

		expired := app.signUp(t, "expired")
		change(`UPDATE "session" SET "expiresAt" = now() - interval '1 second' WHERE "userId" = $1`, expired)
		if k == postgres {
			refused(expired, expired.raw, "the session has expired: sign in again")
		} else {
			refused(expired, expired.raw, unknown) // Better Auth removes it when it is asked
		}

		banned := app.signUp(t, "banned")
		change(`UPDATE "user" SET banned = true WHERE id = $1`, banned)
		refused(banned, banned.raw, "the user is banned: ask an administrator")
		change(`UPDATE "user" SET "banExpires" = now() + interval '1 hour' WHERE id = $1`, banned)
		refused(banned, banned.raw, "the user is banned: ask an administrator")
		change(`UPDATE "user" SET "banExpires" = now() - interval '1 second' WHERE id = $1`, banned)
		mount := s.mount(t, s.as(t, banned, banned.raw), options[3:]...)
		mount.unmount(t)

		gone := app.signUp(t, "gone")
		change(`DELETE FROM "user" WHERE id = $1`, gone)
		refused(gone, gone.raw, unknown)

		if k == folder {
			left := app.signUp(t, "left")
			app.stop()
			r := s.mediafs(t, append(options, "--token-file", s.as(t, left, left.raw).tokenFile, s.mountpoint(t))...)
			complains(t, r, codeApplication, "could not be checked", app.url, "connection refused")
		}
	})
}

// The exit codes of what the application has to do with.
const (
	codeApplication = 12
	codeSignIn      = 13
)

// A signingIn is a mediafs login that waits for somebody to approve it.
type signingIn struct {
	code  string
	ended func() result // waits for it
}

// signIn starts mediafs login and reads the code that it shows.
func (s *store) signIn(t *testing.T, app *application) *signingIn {
	t.Helper()
	path, err := program()
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	cmd := s.person.command(ctx, s.dir, path, "login", app.url)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	said, code := "", ""
	lines := bufio.NewReader(stdout)
	for code == "" {
		line, err := lines.ReadString('\n')
		said += line
		if err != nil {
			t.Fatalf("mediafs login ended: %v\n%s%s", cmd.Wait(), said, &stderr)
		}
		if _, query, ok := strings.Cut(strings.TrimSpace(line), "?user_code="); ok {
			if !strings.HasPrefix(strings.TrimSpace(line), app.url+"/device?") {
				t.Errorf("the address is %q", line)
			}
			code = query
		}
	}
	if !strings.Contains(said, "approve the code "+code+" within 30m0s") {
		t.Errorf("login says %q", said)
	}
	return &signingIn{code, func() result {
		t.Helper()
		rest, err := io.ReadAll(lines)
		check(t, err)
		_ = cmd.Wait() // the code tells
		return result{command: strings.Join(cmd.Args, " "), stdout: strings.TrimPrefix(string(rest), "\n"), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	}}
}

func TestSigningInThroughTheBrowser(t *testing.T) {
	onEachKind(t, func(t *testing.T, k kind) {
		s := bareStore(t, k, person{})
		s.person.home = tempDir(t)
		database := s.database
		if k == folder {
			database = pgtest.New(t)
		}
		app := startApplication(t, database, settings{Device: map[string]string{"interval": "1s"}})
		s.mediafs(t, "init", "--store", s.address).ok(t)
		conn := connect(t, database)
		anna := app.signUp(t, "anna")
		saved := filepath.Join(s.person.home, ".config", "mediafs", "login.json")
		point := s.mountpoint(t)
		mount := []string{"mount", "--store", s.address, "--daemon", point}

		complains(t, s.mediafs(t, mount...), codeToken, "token: none is given", "mediafs login")
		complains(t, s.mediafs(t, "whoami"), codeToken, "nobody is signed in")

		// What the browser's user refuses, or leaves for too long, signs nobody in.
		denied := s.signIn(t, app)
		anna.get(t, "/device?user_code="+denied.code, nil)
		anna.post(t, "/device/deny", map[string]string{"userCode": denied.code}, nil)
		complains(t, denied.ended(), codeSignIn, "the sign-in was denied in the browser")
		late := s.signIn(t, app)
		_, err := conn.Exec(context.Background(), `UPDATE "deviceCode" SET "expiresAt" = now() - interval '1 second' WHERE "userCode" = $1`, late.code)
		check(t, err)
		complains(t, late.ended(), codeSignIn, "the code has expired before it was approved", "mediafs login")
		if _, err := os.Stat(saved); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("something was saved: %v", err)
		}

		approved := s.signIn(t, app)
		anna.get(t, "/device?user_code="+approved.code, nil)
		anna.post(t, "/device/approve", map[string]string{"userCode": approved.code}, nil)
		r := approved.ended()
		if r.ok(t); !strings.HasPrefix(strings.TrimSpace(r.stdout), "signed in as "+anna.id+" until ") || r.stderr != "" {
			t.Errorf("%v", r)
		}
		info, err := os.Stat(saved)
		check(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("the file has mode %v", info.Mode())
		}
		var login struct{ Application, Token string }
		check(t, json.Unmarshal([]byte(readFile(t, saved)), &login))
		if strings.Contains(r.stdout, login.Token) || login.Token == anna.raw || login.Application != app.url+"/api/auth" {
			t.Errorf("saved %+v after it printed %q; the browser's token is %s", login, r.stdout, anna.raw)
		}
		who := s.mediafs(t, "whoami").ok(t)
		var expires time.Time
		check(t, conn.QueryRow(context.Background(), `SELECT "expiresAt" FROM "session" WHERE token = $1`, login.Token).Scan(&expires))
		for _, word := range []string{anna.id, "user", app.url, expires.UTC().Format(time.DateTime)} {
			if !strings.Contains(who, word) {
				t.Errorf("whoami says %q, want %q in it", who, word)
			}
		}

		// The drive is anna's with the session that login began, and with that of her browser.
		if out := s.mediafs(t, mount...).ok(t); out != "mounted "+anna.id+" at "+point+"\n" {
			t.Errorf("it printed %q", out)
		}
		t.Cleanup(func() {
			if isMounted(t, point) {
				s.mediafs(t, "umount", point).ok(t)
			}
		})
		writeFile(t, filepath.Join(point, "file"), "hers")
		s.mediafs(t, "umount", point).ok(t)
		var options []string
		if k == folder {
			options = []string{"--auth", app.url}
		}
		m := s.mount(t, s.as(t, anna, anna.cookie), options...)
		if got := readFile(t, m.path("file")); got != "hers" {
			t.Errorf("read %q", got)
		}
		m.unmount(t)

		// logout ends that session, and no other.
		if out := s.mediafs(t, "logout").ok(t); !strings.Contains(out, "signed out of "+app.url) {
			t.Errorf("logout says %q", out)
		}
		if n := number(t, conn, `SELECT count(*) FROM "session" WHERE token = $1`, login.Token); n != 0 {
			t.Errorf("the session is still there")
		}
		if n := number(t, conn, `SELECT count(*) FROM "session" WHERE token = $1`, anna.raw); n != 1 {
			t.Errorf("the browser's session has ended")
		}
		complains(t, s.mediafs(t, mount...), codeToken, "token: none is given")
		complains(t, s.mediafs(t, "logout"), codeToken, "nobody is signed in")

		// An application that is away does not keep anybody signed in here.
		again := s.signIn(t, app)
		anna.get(t, "/device?user_code="+again.code, nil)
		anna.post(t, "/device/approve", map[string]string{"userCode": again.code}, nil)
		again.ended().ok(t)
		app.stop()
		complains(t, s.mediafs(t, "whoami"), codeApplication, "could not be checked", app.url)
		complains(t, s.mediafs(t, "logout"), codeApplication, "is removed, but the session was not ended", app.url)
		if _, err := os.Stat(saved); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still saved: %v", err)
		}
	})
}
