package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/auth"
	"mediafs/blobstore/pgstore/pgtest"
)

// TestMain lets the test binary be the program, for what takes a process of its own, and always when it was started as a
// daemon, which would run the tests again otherwise. Otherwise the tests have a Postgres.
func TestMain(m *testing.M) {
	if os.Getenv("MEDIAFS_TEST_PROGRAM") != "" || os.Getenv(daemonVariable) != "" {
		main()
	}
	pgtest.Main(m)
}

// outcome is what a run of the program gave.
type outcome struct {
	code           exitCode
	stdout, stderr string
}

// mediafs runs the program with an environment in which only the test sets anything.
func mediafs(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"mediafs"}, args...), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// isolate gives the test folders of its own for what runs and what is saved, and takes away what the caller's environment has.
func isolate(t *testing.T) (runtime string) {
	t.Helper()
	runtime = filepath.Join(t.TempDir(), "run")
	t.Setenv("MEDIAFS_RUNTIME_DIR", runtime)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(t.TempDir(), "config"))
	for _, name := range []string{storeVariable, tokenVariable, daemonVariable, authVariable, metricsVariable, "XDG_RUNTIME_DIR"} {
		t.Setenv(name, "")
	}
	for _, s := range settings {
		t.Setenv(s.variable, "")
	}
	return runtime
}

// newStore makes a store of folders.
func newStore(t *testing.T) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "store")
	if got := mediafs(t, "init", "--store", store); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	return store
}

// newUser adds a user and returns the file with their token.
func newUser(t *testing.T, store, user string) (tokenFile string) {
	t.Helper()
	got := mediafs(t, "user", "add", "--store", store, user)
	if got.code != exitOK {
		t.Fatal(got.stderr)
	}
	tokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(got.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	return tokenFile
}

// wantError checks that the program failed with one line that has all of the words.
func wantError(t *testing.T, got outcome, code exitCode, words ...string) {
	t.Helper()
	if got.code != code {
		t.Errorf("got exit code %d, want %d: %s", got.code, code, got.stderr)
	}
	if got.stdout != "" {
		t.Errorf("got %q on stdout, want nothing", got.stdout)
	}
	if !strings.HasPrefix(got.stderr, "mediafs: ") || strings.Count(got.stderr, "\n") != 1 || !strings.HasSuffix(got.stderr, "\n") {
		t.Errorf("got %q, want one line that starts with \"mediafs: \"", got.stderr)
	}
	for _, word := range words {
		if !strings.Contains(got.stderr, word) {
			t.Errorf("got %q, want %q in it", got.stderr, word)
		}
	}
}

func TestAWrongCommandLineIsOneLineAndExitCode2(t *testing.T) {
	isolate(t)
	store := newStore(t)
	for _, c := range []struct{ line, want string }{
		{"frobnicate", `there is no command "frobnicate": see`},
		{"user frobnicate", `user: there is no command "frobnicate"`},
		{"help frobnicate", "frobnicate"},
		{"--frobnicate", "not defined: -frobnicate"},
		{"init", "no store is given: use --store STORE or set MEDIAFS_STORE"},
		{"init --store", "needs an argument"},
		{"init --store " + store + " extra", "1 arguments, not 0"},
		{"init --stor " + store, "not defined: -stor"},
		{"user add --store " + store, "NAME is missing"},
		{"user add --store " + store + " anna bob", "2 arguments, not 1"},
		{"user add --store " + store + " anna --role root", `role "root"`},
		{"user add --store " + store + " anna --role guest", `role "guest"`},
		{"mount --store " + store, "MOUNTPOINT is missing"},
		{"mount --store " + store + " --timeout soon /mnt", "timeout"},
		{"mount --store " + store + " --timeout -1s /mnt", "--timeout must be longer"},
		{"mount --store " + store + " --log-level loud /mnt", "--log-level is debug"},
		{"mount --daemon=perhaps /mnt", "daemon"},
		{"umount", "MOUNTPOINT is missing"},
		{"umount a b", "2 arguments"},
		{"status now", "1 arguments"},
		{"login", "APP-URL is missing"},
		{"logout now", "1 arguments"},
		{"whoami now", "1 arguments"},
		{"completion", "SHELL is missing"},
		{"completion fish", `the shell "fish"`},
	} {
		t.Run(c.line, func(t *testing.T) {
			wantError(t, mediafs(t, strings.Fields(c.line)...), exitUsage, c.want, "--help`")
		})
	}
	if got := mediafs(t, "user", "list", "--store", store); strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("a wrong command line added a user:\n%s", got.stdout)
	}
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	app := newApp(&bytes.Buffer{}, &bytes.Buffer{})
	for line, want := range map[string]string{
		"mediafs":                                   "mediafs",
		"mediafs user add anna --role admin":        "mediafs user add --role admin -- anna",
		"mediafs user add --store S anna --role=x":  "mediafs user add --store S --role=x -- anna",
		"mediafs mount /mnt --daemon --store S":     "mediafs mount --daemon --store S -- /mnt",
		"mediafs mount --daemon /mnt -token-file F": "mediafs mount --daemon -token-file F -- /mnt",
		"mediafs mount --store S -- --daemon":       "mediafs mount --store S -- --daemon",
		"mediafs umount -":                          "mediafs umount -- -",
		"mediafs umount /mnt --store":               "mediafs umount --store -- /mnt",
		"mediafs mount /mnt --store":                "mediafs mount --store -- /mnt",
		"mediafs --version":                         "mediafs --version",
		"mediafs status --json":                     "mediafs status --json",
		"mediafs user":                              "mediafs user",
		"mediafs user --help":                       "mediafs user --help",
		"mediafs help mount":                        "mediafs help mount",
		"mediafs mount --st " + completionFlag:      "mediafs mount --st " + completionFlag,
	} {
		if got := strings.Join(flagsFirst(app, strings.Fields(line)), " "); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func TestEveryExitCodeIsInTheHelpOnce(t *testing.T) {
	got := mediafs(t, "help")
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("got %+v", got)
	}
	for i, e := range exitCodes {
		if e.code != exitCode(i) {
			t.Errorf("line %d of the table is of code %d", i, e.code)
		}
		if line := fmt.Sprintf("%d  %s\n", e.code, e.meaning); strings.Count(got.stdout, line) != 1 {
			t.Errorf("the help lacks %q", line)
		}
	}
	if len(exitCodes) != int(exitSignIn)+1 {
		t.Errorf("the table has %d codes, want %d", len(exitCodes), exitSignIn+1)
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, line := range []string{"init", "user add", "user list", "user remove", "user token", "mount", "umount", "status", "login", "logout", "whoami", "completion"} {
		for _, flag := range []string{"--help", "-h"} {
			got := mediafs(t, append(strings.Fields(line), flag)...)
			if got.code != exitOK || !strings.Contains(got.stdout, "\n     mediafs "+line) && !strings.Contains(got.stdout, "; mediafs "+line) {
				t.Errorf("%s %s: got %+v, want help with an example", line, flag, got)
			}
		}
	}
	if got := mediafs(t); got.code != exitOK || !strings.Contains(got.stdout, "COMMANDS:") {
		t.Errorf("without arguments: got %+v, want the help", got)
	}
}

func TestHelpShowsNoSecretOfTheEnvironment(t *testing.T) {
	isolate(t)
	t.Setenv(storeVariable, "postgres://anna:hunter2@db/media")
	t.Setenv(tokenVariable, auth.NewToken().Reveal())
	for _, command := range []string{"init", "mount", "user add"} {
		got := mediafs(t, append(strings.Fields(command), "--help")...)
		if s := got.stdout + got.stderr; strings.Contains(s, "hunter2") || strings.Contains(s, auth.TokenPrefix) {
			t.Errorf("%s: got %s", command, s)
		}
	}
}

func TestVersionIsTheOneSetWhenBuilding(t *testing.T) {
	if got := mediafs(t, "--version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "mediafs version ") || len(got.stdout) < len("mediafs version x\n") {
		t.Errorf("without one: got %+v", got)
	}
	version = "1.2.3-test"
	defer func() { version = "" }()
	if got := mediafs(t, "--version"); got.stdout != "mediafs version 1.2.3-test\n" {
		t.Errorf("got %q", got.stdout)
	}
}

// complete has a shell complete a command line, and returns the words that it offers.
func complete(t *testing.T, line ...string) []string {
	t.Helper()
	got := mediafs(t, "completion", "bash")
	if got.code != exitOK {
		t.Fatal(got.stderr)
	}
	bin := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(bin, "mediafs")); err != nil {
		t.Fatal(err)
	}
	script := got.stdout + "\nCOMP_WORDS=(\"$@\")\nCOMP_CWORD=$(($# - 1))\n_mediafs\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, "bash", "mediafs"}, line...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MEDIAFS_TEST_PROGRAM=1",
		"GORACE=atexit_sleep_ms=0") // the race detector lets a process wait a second otherwise
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestBashCompletesCommandsAndFlags(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	isolate(t)
	for _, c := range []struct{ line, want string }{
		{"m", "mount migrate"},
		{"user ", "add list remove token help h"},
		{"user re", "remove"},
		{"mount --read-o", "--read-only"},
		{"mount --store /srv --token", "--token-file"},
		{"user add --r", "--role"},
		{"completion z", "zsh"},
		{"umount ", ""}, // the shell completes names of files then
		{"umount -- ", ""},
	} {
		got := strings.Join(complete(t, strings.Split(c.line, " ")...), " ")
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
}

func TestCompletingNeverCarriesOutACommand(t *testing.T) {
	isolate(t)
	store := newStore(t)
	for _, line := range [][]string{
		{"user", "add", "--store", store, "anna", completionFlag},
		{"user", "add", "--store", store, "--", "anna", completionFlag},
	} {
		if got := mediafs(t, line...); got.code != exitOK || strings.Contains(got.stdout, auth.TokenPrefix) {
			t.Errorf("%v: got %+v", line, got)
		}
	}
	if got := mediafs(t, "user", "list", "--store", store); strings.Contains(got.stdout, "anna") {
		t.Errorf("completing added a user:\n%s", got.stdout)
	}
}

func TestZshCompletionIsValid(t *testing.T) {
	got := mediafs(t, "completion", "zsh")
	if got.code != exitOK || !strings.HasPrefix(got.stdout, "#compdef mediafs\n") || !strings.Contains(got.stdout, completionFlag) {
		t.Fatalf("got %+v", got)
	}
	if _, err := exec.LookPath("zsh"); err != nil {
		t.Log("zsh is not installed: its syntax is not checked")
		return
	}
	cmd := exec.CommandContext(t.Context(), "zsh", "-n")
	cmd.Stdin = strings.NewReader(got.stdout)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
