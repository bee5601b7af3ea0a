package storetest

var attrTests []test
