package pgstore

import "slices"

// folderTree is the folders of a drive, without the root, and which folder each is in; in the order of their numbers.
type folderTree struct{ inos, parents []int64 }

// rings are the smallest numbers of those folders that are each in the next and the last in the first. Each folder is visited once.
func (f folderTree) rings() (smallest []int64) {
	const (
		unseen  = iota
		current // on the way that is being followed
		done
	)
	state := make([]byte, len(f.inos))
	for start := range f.inos {
		var way []int
		at, ends := start, false
		for !ends && state[at] == unseen {
			state[at] = current
			way = append(way, at)
			next, ok := slices.BinarySearch(f.inos, f.parents[at])
			if ends = !ok; ok { // else it is in the root, or in no folder
				at = next
			}
		}
		if !ends && state[at] == current {
			ring := way[slices.Index(way, at):]
			smallest = append(smallest, f.inos[slices.Min(ring)])
		}
		for _, i := range way {
			state[i] = done
		}
	}
	return smallest
}
