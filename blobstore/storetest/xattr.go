package storetest

var xattrTests []test
