package dirstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/auth/accounts"
	"mediafs/blobstore"
	"mediafs/blobstore/dirstore"
)

func checkStore(t *testing.T, media string, repair bool) ([]blobstore.Finding, blobstore.CheckReport) {
	t.Helper()
	var findings []blobstore.Finding
	report, err := dirstore.Check(context.Background(), media, repair, func(f blobstore.Finding) { findings = append(findings, f) })
	if err != nil {
		t.Fatal(err)
	}
	return findings, report
}

func isWhole(t *testing.T, media string) {
	t.Helper()
	findings, report := checkStore(t, media, false)
	if len(findings) > 0 || !report.Whole() {
		t.Errorf("the store is not whole: %+v", findings)
	}
}

// used is a store with accounts, a log and its index, in which alice and bob have the same.
func used(t *testing.T) string {
	t.Helper()
	media := filepath.Join(t.TempDir(), "media")
	if err := dirstore.Init(media); err != nil {
		t.Fatal(err)
	}
	users, err := accounts.Open(dirstore.AccountsPath(media))
	if err != nil {
		t.Fatal(err)
	}
	store := openStore(t, media)
	defer closeStore(t, store)
	for _, user := range []auth.UserID{"alice", "bob"} {
		if _, err := users.Add(t.Context(), user, auth.RoleUser); err != nil {
			t.Fatal(err)
		}
		drive, err := store.Open(t.Context(), session(user))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(media, string(user))
		err = errors.Join(os.Mkdir(filepath.Join(dir, "album"), 0o700), os.WriteFile(filepath.Join(dir, "album", "photo"), []byte(user), 0o600),
			os.Link(filepath.Join(dir, "album", "photo"), filepath.Join(dir, "again")), os.Symlink("again", filepath.Join(dir, "link")))
		if err != nil {
			t.Fatal(err)
		}
		attr, err := drive.Lookup(t.Context(), root, "again")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			opened(drive, attr.Ino, "/again")
		}
		if err := drive.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return media
}

// files are all regular files of the drives with their content.
func files(t *testing.T, media string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, drive := range []string{"alice", "bob"} {
		err := filepath.WalkDir(filepath.Join(media, drive), func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			found[path] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func inIndex(t *testing.T, media, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(media, ".mediafs", "index.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// logOf is the log's file.
func logOf(t *testing.T, media string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(media, ".mediafs", "audit", "*.jsonl"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("got the logs %q, %v", logs, err)
	}
	return logs[0]
}

func addTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsEachFaultAndRepairsWhatIsTheStoresOwn(t *testing.T) {
	hourAgo := time.Now().Add(-2 * time.Hour)
	for _, test := range []struct {
		name     string
		damage   func(t *testing.T, media string) error
		kind     string
		where    blobstore.Finding // drive and name
		n        int
		repaired bool
	}{
		{"accounts that others may read", func(_ *testing.T, media string) error { return os.Chmod(dirstore.AccountsPath(media), 0o640) },
			"mode", blobstore.Finding{Name: ".mediafs/accounts.json"}, 1, true},
		{"accounts that can't be read", func(t *testing.T, media string) error { addTo(t, dirstore.AccountsPath(media), "}"); return nil },
			"accounts", blobstore.Finding{Name: ".mediafs/accounts.json"}, 1, false},
		{"what killed programs have left", func(_ *testing.T, media string) error {
			drive, list := filepath.Join(media, ".mediafs", "drive-X"), filepath.Join(media, ".mediafs", ".accounts.json.1")
			return errors.Join(os.Mkdir(drive, 0o700), os.WriteFile(list, nil, 0o600), os.Chtimes(drive, hourAgo, hourAgo), os.Chtimes(list, hourAgo, hourAgo))
		}, "leftover", blobstore.Finding{Name: ".mediafs/drive-X"}, 2, true},
		{"no public drive", func(_ *testing.T, media string) error { return os.Remove(filepath.Join(media, "public")) },
			"no-public-drive", blobstore.Finding{Name: "public"}, 1, false},
		{"a name that no user has", func(_ *testing.T, media string) error { return os.Mkdir(filepath.Join(media, "my photos"), 0o700) },
			"no-drive", blobstore.Finding{Name: "my photos"}, 1, false},
		{"a link to a folder", func(_ *testing.T, media string) error { return os.Symlink("alice", filepath.Join(media, "carol")) },
			"no-drive", blobstore.Finding{Name: "carol"}, 1, false},
		{"a file with a name outside", func(_ *testing.T, media string) error {
			return os.Link(filepath.Join(media, "alice", "again"), filepath.Join(media, "..", "outside"))
		}, "outside", blobstore.Finding{Drive: "alice", Name: "again"}, 1, false},
		{"a line that is no record", func(t *testing.T, media string) error {
			addTo(t, logOf(t, media), "\x00\x00\x00 not a record\n"+`{"action":"open","ino":`+"\n")
			return nil
		}, "log-line", blobstore.Finding{Name: ".mediafs/audit/"}, 1, true},
		{"an index with other counts", func(t *testing.T, media string) error {
			inIndex(t, media, "update accesses set count = count + 1")
			return nil
		},
			"index", blobstore.Finding{Name: ".mediafs/index.sqlite"}, 1, true},
		{"an index that is no database", func(_ *testing.T, media string) error {
			return os.WriteFile(filepath.Join(media, ".mediafs", "index.sqlite"), []byte(strings.Repeat("no database", 1000)), 0o600)
		}, "index", blobstore.Finding{Name: ".mediafs/index.sqlite"}, 1, true},
		{"quotas that are no database", func(_ *testing.T, media string) error {
			return os.WriteFile(filepath.Join(media, ".mediafs", "quota.sqlite"), []byte(strings.Repeat("no database", 1000)), 0o600)
		}, "quota", blobstore.Finding{Name: ".mediafs/quota.sqlite"}, 1, false},
		{"an index that is ahead", func(t *testing.T, media string) error {
			inIndex(t, media, "update followed set offset = offset + 100000")
			return nil
		},
			"index", blobstore.Finding{Name: ".mediafs/index.sqlite"}, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			media := used(t)
			isWhole(t, media)
			before := files(t, media)
			if err := test.damage(t, media); err != nil {
				t.Fatal(err)
			}
			findings, report := checkStore(t, media, false)
			if len(findings) != test.n || report.Found[test.kind] != int64(test.n) {
				t.Fatalf("found %+v, want %d of kind %q", findings, test.n, test.kind)
			}
			if !slices.ContainsFunc(findings, func(f blobstore.Finding) bool {
				return f.Drive == test.where.Drive && strings.HasPrefix(f.Name, test.where.Name) && f.Says != "" && !f.Repaired
			}) {
				t.Errorf("found %+v, want it at %+v", findings, test.where)
			}
			repaired, report := checkStore(t, media, true)
			if len(repaired) != test.n || repaired[0].Repaired != test.repaired || report.Whole() != test.repaired || !report.Repaired {
				t.Errorf("repaired %+v: %+v", repaired, report)
			}
			if test.repaired {
				isWhole(t, media)
			}
			if got := files(t, media); !maps.Equal(got, before) {
				t.Errorf("got %q, want %q", got, before)
			}
		})
	}
}

func TestCheckFindsWhatIsInTwoDrivesInBoth(t *testing.T) {
	media := used(t)
	if err := os.Link(filepath.Join(media, "alice", "again"), filepath.Join(media, "bob", "hers")); err != nil {
		t.Fatal(err)
	}
	findings, _ := checkStore(t, media, true)
	var at []string
	for _, f := range findings {
		at = append(at, fmt.Sprintf("%s %s/%s", f.Kind, f.Drive, f.Name))
	}
	slices.Sort(at)
	if got := strings.Join(at, ", "); got != "shared alice/again, shared bob/hers" {
		t.Errorf("found %s", got)
	}
}

func TestCheckFindsWhatIsAnothersOrMountedInADrive(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" && os.Getenv(ordinary) == "" {
			t.Fatal("CI has to be root")
		}
		t.Skip("only root may do this")
	}
	media := used(t)
	mounted := filepath.Join(media, "alice", "album", "mounted")
	err := errors.Join(os.Lchown(filepath.Join(media, "alice", "link"), 4711, 4711), os.Mkdir(mounted, 0o700), unix.Mount("none", mounted, "tmpfs", 0, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mounted, unix.MNT_DETACH)
	findings, report := checkStore(t, media, true)
	if len(findings) != 2 || findings[0].Kind != "not-looked-at" || findings[0].Drive != "alice" || findings[0].Name != "album/mounted" ||
		findings[1].Kind != "foreign-owner" || findings[1].Drive != "alice" || findings[1].Name != "link" {
		t.Errorf("found %+v", findings)
	}
	if want := int64(3); report.Drives != want || report.Nodes != 3+2*3 {
		t.Errorf("looked at %d drives and %d nodes", report.Drives, report.Nodes)
	}
}

func TestALogThatWasRepairedHasAllItsRecordsAndWhatWasBetweenThem(t *testing.T) {
	media := used(t)
	want := paths(t, media)
	log := logOf(t, media)
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(whole), "\n")
	if err := os.WriteFile(log, []byte(first+"\nwhat is this\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	checkStore(t, media, true)
	if got := paths(t, media); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	kept, err := os.ReadFile(filepath.Join(media, ".mediafs", "lost+found", fmt.Sprintf("%s-%d", filepath.Base(log), len(first)+1)))
	if err != nil || string(kept) != "what is this\n" {
		t.Errorf("got %q, %v", kept, err)
	}
}
