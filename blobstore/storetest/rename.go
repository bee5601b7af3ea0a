package storetest

var renameTests []test
