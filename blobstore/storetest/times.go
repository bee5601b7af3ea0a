package storetest

var timeTests []test
