package etcd

type views struct{}

func (*views) init() {}
