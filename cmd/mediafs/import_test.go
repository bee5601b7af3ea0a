package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mediafs/blobstore"
)

func TestAWrongImportExportOrMigrationIsOneLine(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	drive := filepath.Join(store, "anna")
	base := []string{"--store", store, "--token-file", token}
	for _, c := range []struct {
		args []string
		code exitCode
		want string
	}{
		{append([]string{"import"}, base...), exitUsage, "SOURCE is missing"},
		{append([]string{"import", "--into", "../up", "x"}, base...), exitUsage, `--into "../up" is not a path on the drive`},
		{append([]string{"import", "--job", strings.Repeat("j", 1<<20), "x"}, base...), exitUsage, "--job: a job id of 1048576 bytes, the longest has 255"},
		{append([]string{"import", "--job", "two\nlines", "x"}, base...), exitUsage, "is not plain text"},
		{append([]string{"export"}, base...), exitUsage, "FOLDER is missing"},
		{append([]string{"migrate"}, base...), exitUsage, "not defined: -store"},
		{[]string{"migrate", "--to", store}, exitUsage, "--from STORE is missing"},
		{[]string{"migrate", "--from", store}, exitUsage, "--to STORE is missing"},
		{[]string{"migrate", "--from", store, "--to", store + "/"}, exitUsage, "are the same store"},
		{[]string{"migrate", "--from", store, "--to", t.TempDir()}, exitStoreSchema, "mediafs init"},
	} {
		wantError(t, mediafs(t, c.args...), c.code, c.want)
	}
	// Once it has begun, there is a report too. The drive is made by then.
	got := mediafs(t, append([]string{"import", drive}, base...)...)
	if got.code != exitFailed || !strings.Contains(got.stdout, "skipped: "+drive+": the drive is kept in "+drive) {
		t.Errorf("the drive into itself: got %+v", got)
	}
	got = mediafs(t, append([]string{"export", filepath.Join(drive, "copy")}, base...)...)
	if got.code != exitFailed || !strings.Contains(got.stderr, "the drive is kept in") || strings.Contains(got.stderr, "run it again") {
		t.Errorf("the drive out into itself: got %+v", got)
	}
	if _, err := os.Lstat(filepath.Join(drive, "copy")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the drive out into itself: the folder is there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{file, filepath.Join(file, "missing", "folder")} {
		got := mediafs(t, append([]string{"export", folder}, base...)...)
		if got.code != exitFailed || !strings.Contains(got.stderr, "choose another folder") {
			t.Errorf("out into %s: got %+v", folder, got)
		}
	}
}

func TestHelpOfImportExportAndMigrateHasExamples(t *testing.T) {
	isolate(t)
	for _, command := range []string{"import", "export", "migrate"} {
		if got := mediafs(t, command, "--help"); got.code != exitOK || !strings.Contains(got.stdout, "Examples:\n\n     mediafs "+command) {
			t.Errorf("%s: got %+v", command, got)
		}
	}
}

func TestTheReasonsOfDrivesAreToldInTheWordsOfAUser(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("dirstore: open 17: %w", blobstore.ErrAccess):                                                       "access denied",
		fmt.Errorf("it is copied, but not removed: %w", fmt.Errorf("dirstore: unlink 1: %w", blobstore.ErrPermission)): "it is copied, but not removed: not permitted",
		fmt.Errorf("pgstore: write: wait for memory: %w", blobstore.ErrNoSpace):                                        "wait for memory: no space left",
		errors.New("pgstore is none"): "pgstore is none",
	} {
		if got := reason(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestAnImportIsPrintedForPeopleAndForPrograms(t *testing.T) {
	isolate(t)
	store := newStore(t)
	token := newUser(t, store, "anna")
	source := filepath.Join(t.TempDir(), "Pictures")
	if err := errors.Join(os.Mkdir(source, 0o755), os.WriteFile(filepath.Join(source, "a.jpg"), []byte("picture"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := mediafs(t, "import", "--store", store, "--token-file", token, source); got != (outcome{0, "copied and verified 1 file (7 B), 1 folder; nothing skipped\n", ""}) {
		t.Errorf("got %+v", got)
	}
	got := mediafs(t, "import", "--store", store, "--token-file", token, "--json", source)
	if got.code != exitOK || !strings.HasPrefix(got.stdout, `{"event":"end","ended":true,"copied":0,"bytes":0,"present":1,"folders":1,`) || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}
