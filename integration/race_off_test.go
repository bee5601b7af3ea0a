//go:build !race

package integration

// buildFlags are those of the program under test: where the tests look for data races, the program does so too.
var buildFlags []string
