package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mediafs/blobstore"
)

// putFiles writes files into a user's drive of a store of folders, as a web application does.
func putFiles(t *testing.T, store, drive string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		at := filepath.Join(store, drive, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The content of a file that was written within one tick of the clock is not described yet.
	old := time.Now().Add(-time.Hour)
	for name := range files {
		if err := os.Chtimes(filepath.Join(store, drive, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// listed runs `mediafs` and returns its lines, each with single spaces and without times.
func listed(t *testing.T, args ...string) []string {
	t.Helper()
	got := mediafs(t, args...)
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("%q: got %+v", args, got)
	}
	var lines []string
	for line := range strings.Lines(got.stdout) {
		fields := slices.DeleteFunc(strings.Fields(line), func(field string) bool {
			_, dateErr := time.Parse(time.DateOnly, field)
			_, timeErr := time.Parse(time.TimeOnly, field)
			return dateErr == nil || timeErr == nil
		})
		lines = append(lines, strings.Join(fields, " "))
	}
	return lines
}

const gif = "GIF89a\x02\x00\x03\x00\x00\x00\x00;"

func TestFilesAreListedAndFoundWithoutAMount(t *testing.T) {
	isolate(t)
	store := newStore(t)
	anna, bob := newUser(t, store, "anna"), newUser(t, store, "bob")
	putFiles(t, store, "anna", map[string]string{
		"note.txt": "hello", "2026/a.gif": gif, "2026/deep/b.GIF": gif + strings.Repeat(" ", 2000), "2026/strange\x1b[31m\n\xff.txt": "x",
	})
	if err := os.Mkdir(filepath.Join(store, "anna", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	putFiles(t, store, "bob", map[string]string{"secret.txt": "bob's"})
	putFiles(t, store, "public", map[string]string{"all.txt": "everybody's"})
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"ls"}, []string{"SIZE TYPE CREATED NAME", "- folder - 2026/", "- folder - empty/", "5 B text/plain note.txt"}},
		{[]string{"ls", "--limit", "1"}, []string{"SIZE TYPE CREATED NAME", "- folder - 2026/"}},
		{[]string{"ls", "empty"}, []string{"there is nothing in it"}},
		{[]string{"ls", "/2026/"}, []string{"SIZE TYPE CREATED NAME", "- folder - deep/", "14 B image/gif a.gif", `1 B text/plain "strange\x1b[31m\n\xff.txt"`}},
		{[]string{"ls", "2026/../2026/deep"}, []string{"SIZE TYPE CREATED NAME", "2.0 KiB image/gif b.GIF"}},
		{[]string{"find", "--by-path", "--type", "image/*"}, []string{"SIZE TYPE CREATED PATH", "14 B image/gif 2026/a.gif", "2.0 KiB image/gif 2026/deep/b.GIF"}},
		{[]string{"find", "--name", "*.gif", "2026/deep"}, []string{"SIZE TYPE CREATED PATH", "2.0 KiB image/gif 2026/deep/b.GIF"}},
		{[]string{"find", "--min-size", "2K"}, []string{"there are no such files"}},
		{[]string{"find", "--min-size", "1K", "--since", "1h", "--until", time.Now().Add(time.Hour).Format(time.RFC3339)},
			[]string{"SIZE TYPE CREATED PATH", "2.0 KiB image/gif 2026/deep/b.GIF"}},
		{[]string{"find", "--by-path", "--max-size", "13", "--type", "text/plain,image/gif", "--limit", "1"}, []string{"SIZE TYPE CREATED PATH", "5 B text/plain note.txt"}},
		{[]string{"find", "--job", "job-1"}, []string{"there are no such files"}},
		{[]string{"find", "--drive", "bob"}, []string{"there are no such files"}},
	} {
		if got := listed(t, append(test.args, "--store", store, "--token-file", anna)...); !slices.Equal(got, test.want) {
			t.Errorf("%q: got\n%s\nwant\n%s", test.args, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
	for _, folder := range []string{"nowhere", "../bob"} {
		for _, command := range []string{"ls", "find"} {
			wantError(t, mediafs(t, command, "--store", store, "--token-file", anna, folder), exitFailed, path.Base(folder), "no such folder", "mediafs ls")
		}
	}
	wantError(t, mediafs(t, "ls", "--store", store, "--token-file", anna, "note.txt"), exitFailed, "note.txt", "not a folder")
	if got := listed(t, "find", "--store", store, "--token-file", bob); !slices.Equal(got, []string{"SIZE TYPE CREATED PATH", "5 B text/plain secret.txt"}) {
		t.Errorf("bob finds %q", got)
	}
	if got := listed(t, "find", "--store", store, "--guest"); !slices.Equal(got, []string{"SIZE TYPE CREATED PATH", "11 B text/plain all.txt"}) {
		t.Errorf("a guest finds %q", got)
	}
	added := mediafs(t, "user", "add", "--store", store, "--role", "admin", "ada")
	ada := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(ada, []byte(added.stdout), 0o600); err != nil || added.code != exitOK {
		t.Fatal(err, added.stderr)
	}
	want := []string{"DRIVE SIZE TYPE CREATED PATH", "anna 5 B text/plain note.txt", "bob 5 B text/plain secret.txt", "public 11 B text/plain all.txt"}
	if got := listed(t, "find", "--store", store, "--token-file", ada, "--by-path", "--name", "*.txt", "--max-size", "11", "--min-size", "5"); !slices.Equal(got, want) {
		t.Errorf("an admin finds %q, want %q", got, want)
	}
	if got := listed(t, "ls", "--store", store, "--token-file", ada, "--drive", "bob"); len(got) != 2 || got[1] != "bob 5 B text/plain secret.txt" {
		t.Errorf("an admin lists %q", got)
	}
}

func TestFilesAreListedAsJSON(t *testing.T) {
	isolate(t)
	store := newStore(t)
	anna := newUser(t, store, "anna")
	putFiles(t, store, "anna", map[string]string{"a.gif": gif, "<\xff>": ""})
	got := mediafs(t, "find", "--store", store, "--token-file", anna, "--by-path", "--json")
	var lines []assetJSON
	for line := range strings.Lines(got.stdout) {
		var a assetJSON
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, a)
	}
	if got.code != exitOK || len(lines) != 2 {
		t.Fatalf("got %+v", got)
	}
	strange, picture := lines[0], lines[1]
	if strange.Path != "" || strange.PathQuoted != `"<\xff>"` || strange.Size != 0 || !strange.Described {
		t.Errorf("got %+v", strange)
	}
	if picture.Path != "a.gif" || picture.Drive != "anna" || picture.Size != 14 || picture.Type != "image/gif" || picture.Width != 2 || picture.Height != 3 ||
		len(picture.SHA256) != 64 || len(picture.ID) != 36 || picture.Taken != nil || picture.Created == nil || time.Since(*picture.Created) > time.Hour {
		t.Errorf("got %+v", picture)
	}
	putFiles(t, store, "anna", map[string]string{"folder/a": "", "folder \xff/a": ""})
	var folders []folderJSON
	for line := range strings.Lines(mediafs(t, "ls", "--store", store, "--token-file", anna, "--json", "--limit", "2").stdout) {
		var f folderJSON
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Drive != "anna" || f.Changed.IsZero() {
			t.Errorf("%q: %v", line, err)
		}
		folders = append(folders, f)
	}
	if len(folders) != 2 || folders[0].Folder != "folder" || folders[1].Folder != "" || folders[1].FolderQuoted != `"folder \xff"` {
		t.Errorf("got the folders %+v", folders)
	}
	if got := mediafs(t, "find", "--store", store, "--token-file", anna, "--json", "--name", "none"); got != (outcome{}) {
		t.Errorf("nothing, as JSON: got %+v", got)
	}
}

func TestFilesAreFoundTheNewestFirst(t *testing.T) {
	isolate(t)
	store := newStore(t)
	anna := newUser(t, store, "anna")
	made := func(name string) (at time.Time) {
		t.Helper()
		putFiles(t, store, "anna", map[string]string{name: ""})
		got := mediafs(t, "find", "--store", store, "--token-file", anna, "--json", "--name", name)
		var a assetJSON
		if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || a.Created == nil {
			t.Fatal(got, err)
		}
		return *a.Created
	}
	// The clock of a file system has ticks: the second file is made anew until it is the newer one.
	older := made("a")
	for deadline := time.Now().Add(10 * time.Second); !made("b").After(older); {
		if time.Now().After(deadline) {
			t.Fatal("no file is newer than another")
		}
		if err := os.Remove(filepath.Join(store, "anna", "b")); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"find"}, []string{"b", "a"}},
		{[]string{"find", "--by-path"}, []string{"a", "b"}},
		{[]string{"ls"}, []string{"a", "b"}},
	} {
		var names []string
		for _, line := range listed(t, append(test.args, "--store", store, "--token-file", anna)...)[1:] {
			names = append(names, line[strings.LastIndexByte(line, ' ')+1:])
		}
		if !slices.Equal(names, test.want) {
			t.Errorf("%q: got %q, want %q", test.args, names, test.want)
		}
	}
}

func TestAListOfManyPagesHasOneHeader(t *testing.T) {
	isolate(t)
	store := newStore(t)
	anna := newUser(t, store, "anna")
	files := make(map[string]string)
	for i := range 2*assetPage + 500 {
		files[fmt.Sprintf("%05d", i)] = ""
	}
	putFiles(t, store, "anna", files)
	got := listed(t, "ls", "--store", store, "--token-file", anna)
	if len(got) != len(files)+1 || got[0] != "SIZE TYPE CREATED NAME" || !strings.HasSuffix(got[len(got)-1], " 02499") {
		t.Errorf("got %d lines, the last %q", len(got), got[len(got)-1])
	}
	if got := listed(t, "find", "--store", store, "--token-file", anna, "--limit", "1234"); len(got) != 1235 {
		t.Errorf("with --limit 1234: got %d lines", len(got))
	}
}

func TestWhatIsNoQuerySaysTheWayOut(t *testing.T) {
	isolate(t)
	store := newStore(t)
	anna := newUser(t, store, "anna")
	for _, test := range []struct{ args, words []string }{
		{[]string{"find", "--name", "[a"}, []string{"--name", "no pattern", "[a-z]"}},
		{[]string{"find", "--name", "2026/*"}, []string{"slash", "last argument"}},
		{[]string{"find", "--type", "image"}, []string{"--type", "image/*"}},
		{[]string{"find", "--type", "*/*"}, []string{"--type", "image/*"}},
		{[]string{"find", "--since", "yesterday"}, []string{"--since", "yesterday", "7d"}},
		{[]string{"find", "--until", "2026-13-01"}, []string{"--until", "2026-13-01", "7d"}},
		{[]string{"find", "--since", "1h", "--until", "2h"}, []string{"--until", "--since"}},
		{[]string{"find", "--min-size", "10X"}, []string{"--min-size", "10X", "64M"}},
		{[]string{"find", "--max-size", "0"}, []string{"--max-size", "0"}},
		{[]string{"find", "--min-size", "2M", "--max-size", "1M"}, []string{"--min-size", "--max-size"}},
		{[]string{"find", "--job", strings.Repeat("j", blobstore.MaxJobLen+1)}, []string{"--job", "255"}},
		{[]string{"find", "--limit", "0"}, []string{"--limit", "1"}},
		{[]string{"ls", "My", "Pictures"}, []string{"2 arguments", "quotes"}},
		{[]string{"ls", "--guest"}, []string{"--guest", "token"}},
	} {
		wantError(t, mediafs(t, append(test.args, "--store", store, "--token-file", anna)...), exitUsage, test.words...)
	}
	wantError(t, mediafs(t, "ls", "--store", t.TempDir(), "--token-file", anna), exitStoreSchema, "not a store yet")
	wantError(t, mediafs(t, "ls", "--store", store), exitToken, "token")
	stranger := newUser(t, newStore(t), "anna")
	wantError(t, mediafs(t, "ls", "--store", store, "--token-file", stranger), exitToken, "token")
}
