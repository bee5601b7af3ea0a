package dirstore

import (
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"mediafs/blobstore"
)

// Forgetful makes a store keep the descriptor of one folder and trust it for no time, so that every node is found by names.
func Forgetful(s *Store) { s.folders.limit, s.trust = 1, 0 }

// Trusting makes a store never doubt a descriptor that it keeps.
func Trusting(s *Store) { s.trust = 1 << 62 }

// FolderLimit sets how many descriptors of folders a store keeps.
func FolderLimit(s *Store, n int) { s.folders.limit = n }

// Known is how many nodes a drive remembers.
func Known(d blobstore.Drive) int {
	drive := d.(*Drive)
	drive.mu.Lock()
	defer drive.mu.Unlock()
	return len(drive.nodes)
}

// SetIndexVersion gives an index another version of its schema, and returns the file's bytes then.
func SetIndexVersion(t testing.TB, path string, version int) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	// In the file itself: what is in the write-ahead log alone is no byte of it.
	if _, err := db.Exec(fmt.Sprintf("pragma user_version = %d; pragma wal_checkpoint(truncate)", version)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// RecountSoon has a drive be counted anew at once when something was refused.
func RecountSoon(d blobstore.Drive) { d.(*Drive).quota.pause.Store(0) }

// SetTerms has a store go by what it has seen of files for other times than the usual ones.
func SetTerms(s *Store, quiet, old, whole time.Duration, turn int) {
	s.catalog.terms = terms{quiet, old, whole, turn}
}

// MakeFirstCatalogue makes a catalogue of version 1.
func MakeFirstCatalogue(t testing.TB, path string) {
	t.Helper()
	db, err := openDatabase(t.Context(), path, `
		create table assets (
			drive text not null, folder blob not null, name blob not null, ino integer not null, born_ns integer not null, size integer not null,
			mtime_ns integer not null, ctime_ns integer not null, nlink integer not null, job text not null, primary key (drive, folder, name)
		) without rowid;
		create index assets_by_node on assets (drive, ino, born_ns);
		create index assets_by_birth on assets (drive, born_ns);
		create table facts (
			drive text not null, ino integer not null, born_ns integer not null, size integer not null, mtime_ns integer not null, type text not null,
			sha256 blob, width integer not null, height integer not null, taken_ns integer, primary key (drive, ino, born_ns)
		) without rowid;
		insert into assets values ('alice', '', 'gone', 1, 2, 3, 4, 5, 1, '');`, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
