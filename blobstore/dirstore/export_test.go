package dirstore

import "mediafs/blobstore"

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
