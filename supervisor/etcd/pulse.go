package etcd

type pulse struct{}
