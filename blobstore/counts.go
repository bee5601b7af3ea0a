package blobstore

// A Counter is what a Store also is that has to ask a database, and counts how often.
type Counter interface {
	Counts() Counts
}

// Counts are of a store and all its drives, since it was opened.
type Counts struct {
	RoundTrips uint64 // questions to the database that it has answered; making a connection is some of them
	Hits       uint64 // names and attributes that were asked for and known here
	Misses     uint64 // those that the database was asked for
}
