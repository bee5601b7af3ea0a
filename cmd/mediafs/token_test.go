package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/auth"
)

const betterAuthToken = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"

func TestTheTokenComesFromTheFileOrTheEnvironment(t *testing.T) {
	isolate(t)
	account := auth.NewToken()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("  "+account.Reveal()+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(tokenVariable, "Bearer "+betterAuthToken)
	if got, warning, err := readToken(file); err != nil || got != account || warning != "" {
		t.Errorf("from the file: got %q, %q, %v", got.Reveal(), warning, err)
	}
	if got, warning, err := readToken(""); err != nil || got.Reveal() != betterAuthToken || warning != "" {
		t.Errorf("from the environment: got %q, %q, %v", got.Reveal(), warning, err)
	}
	if got, ok := os.LookupEnv(tokenVariable); ok {
		t.Errorf("programs started from here get %q", got)
	}
}

func TestATokenFileThatOthersCanReadIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "my token")
	if err := os.WriteFile(file, []byte(betterAuthToken), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, warning, err := readToken(file)
		if err != nil || (warning != "") != want || want && !strings.Contains(warning, "chmod 600 '"+file+"'") {
			t.Errorf("mode %o: got %q, %v", mode, warning, err)
		}
	}
}

func TestATokenThatIsNoneIsExitCode6AndIsNotShown(t *testing.T) {
	isolate(t)
	store := newStore(t)
	newUser(t, store, "anna")
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mount := func(args ...string) outcome {
		return mediafs(t, append(append([]string{"mount", "--store", store}, args...), dir)...)
	}
	wantError(t, mount(), exitToken, "token: none is given: use --token-file FILE or set "+tokenVariable)
	wantError(t, mount("--token-file", filepath.Join(dir, "missing")), exitToken, "token file", "missing", "mediafs user add")
	wantError(t, mount("--token-file", dir), exitToken, "token file", dir)
	wantError(t, mount("--token-file", write("empty", " \n")), exitToken, "empty", "mediafs user token")

	mountpoint := t.TempDir()
	for what, secret := range map[string]string{
		"unknown":            auth.NewToken().Reveal(),
		"of no application":  betterAuthToken,
		"with spaces inside": auth.TokenPrefix + "secret secret",
		"no token":           "hunter2 hunter2",
		"very long":          auth.TokenPrefix + strings.Repeat("secret", 2000),
	} {
		for _, flags := range [][]string{nil, {"--daemon"}} {
			args := append([]string{"mount", "--store", store, mountpoint}, flags...)
			if len(flags) > 0 {
				t.Setenv("MEDIAFS_TEST_PROGRAM", "1") // the daemon is this test binary
			}
			fromFile := mediafs(t, append(args, "--token-file", write("token", secret))...)
			t.Setenv(tokenVariable, secret)
			fromEnvironment := mediafs(t, args...)
			t.Setenv("MEDIAFS_TEST_PROGRAM", "")
			for _, got := range []outcome{fromFile, fromEnvironment} {
				wantError(t, got, exitToken, "the token is not known")
				if strings.Contains(got.stderr, secret[:12]) {
					t.Errorf("%s: the error shows the token: %s", what, got.stderr)
				}
			}
		}
	}
	logs, err := filepath.Glob(filepath.Join(os.Getenv("MEDIAFS_RUNTIME_DIR"), "*"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("got %v, %v in the runtime folder, want the daemon's log alone", logs, err)
	}
	log, err := os.ReadFile(logs[0])
	if err != nil || !strings.Contains(string(log), "the token is not known") || strings.Contains(string(log), "hunter2") || strings.Contains(string(log), auth.TokenPrefix) {
		t.Errorf("got the log %q, %v", log, err)
	}
	if info, err := os.Stat(logs[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(store, "anna")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a drive was made: %v", err)
	}
}
