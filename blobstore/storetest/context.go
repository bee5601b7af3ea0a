package storetest

var contextTests []test
