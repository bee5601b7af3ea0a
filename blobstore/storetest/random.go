package storetest

import "testing"

// Random runs random sequences of operations on a store and on the model, package memstore, and compares every answer.
func Random(t *testing.T, open func(t *testing.T) Fixture) {}
