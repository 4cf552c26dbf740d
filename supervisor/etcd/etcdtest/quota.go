package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// bigKey is what Fill overwrites.
const bigKey = "/etcdtest/big"

// Fill writes until etcd has reached its quota and denies every write. It wants
// a small one: see Options.Quota.
func (c *Cluster) Fill(ctx context.Context) error {
	cli, err := c.client()
	if err != nil {
		return err
	}
	defer cli.Close()
	for err == nil {
		_, err = cli.Put(ctx, bigKey, strings.Repeat("x", 1<<20))
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("fill etcd: %w", err)
	}
	return nil
}

// Mend does what an administrator does after that: compact, defragment, disarm.
func (c *Cluster) Mend(ctx context.Context) error {
	cli, err := c.client()
	if err != nil {
		return err
	}
	defer cli.Close()
	now, err := cli.Get(ctx, bigKey)
	if err == nil {
		_, err = cli.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	}
	for _, end := range c.Endpoints() {
		if err == nil {
			_, err = cli.Defragment(ctx, end)
		}
	}
	if err == nil {
		_, err = cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		return fmt.Errorf("mend etcd: %w", err)
	}
	return nil
}

func (c *Cluster) client() (*clientv3.Client, error) {
	conf, err := c.clientTLS()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), TLS: conf, Logger: zap.NewNop()})
}
