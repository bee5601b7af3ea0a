package storetest

var dirTests []test
