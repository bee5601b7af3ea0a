package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestTheDaemonsEnvironmentHasNoSecret(t *testing.T) {
	environment := []string{"HOME=/root", tokenVariable + "=mfs_secret", storeVariable + "=postgres://u:hunter2@h/d", "PGPASSFILE=/x", "MEDIAFS_RUNTIME_DIR=/r"}
	want := []string{"HOME=/root", "PGPASSFILE=/x", "MEDIAFS_RUNTIME_DIR=/r", daemonVariable + "=1"}
	before := slices.Clone(environment)
	if got := daemonEnvironment(environment); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !slices.Equal(environment, before) {
		t.Error("the caller's list was changed")
	}
}

func TestEachMountpointHasALogOfItsOwn(t *testing.T) {
	a, b := logName("/mnt/a-b"), logName("/mnt/a/b")
	if a == b || a != logName("/mnt/a-b") || len(a) != len("mount-0123456789ab.log") {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestWhoStartsADaemonIsWarnedOfATokenThatOthersCanRead(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	got := mediafs(t, "mount", "--daemon", "--store", store+"-that-is-missing", "--token-file", token, t.TempDir())
	if want := "mediafs: warning: others can read the token file " + token + ": chmod 600 " + token + "\n"; !strings.HasPrefix(got.stderr, want) {
		t.Errorf("got %q, want it to start with %q", got.stderr, want)
	}
	if got.code != exitStoreSchema {
		t.Errorf("got exit code %d, want %d", got.code, exitStoreSchema)
	}
}
