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
