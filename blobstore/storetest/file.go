package storetest

var fileTests []test
