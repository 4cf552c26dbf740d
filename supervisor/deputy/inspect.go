package main

import (
	"context"
	"fmt"
)

// An etcdFinding is what etcd says of itself.
type etcdFinding struct {
	Endpoints []string `json:"endpoints"`
}

func (a *app) deepEtcd(ctx context.Context, f *finding) error {
	records, err := a.records()
	if err != nil {
		return err
	}
	defer records.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err = records.Services(ctx)
	return err
}

func (e *etcdFinding) print(a *app) { fmt.Fprintln(a.stdout, "  etcd:", list(e.Endpoints)) }
