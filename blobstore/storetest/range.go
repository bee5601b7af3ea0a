package storetest

var rangeTests []test
