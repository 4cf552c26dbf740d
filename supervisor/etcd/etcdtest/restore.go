package etcdtest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// Snapshot writes what the cluster holds into a new file and returns its name.
func (c *Cluster) Snapshot(ctx context.Context) (string, error) {
	leader := c.Leader(ctx)
	if leader < 0 {
		return "", fmt.Errorf("take a snapshot: %w", context.Cause(ctx))
	}
	f, err := os.CreateTemp(c.dir, "snapshot-*.db")
	if err != nil {
		return "", err
	}
	f.Close()
	cfg := clientv3.Config{Endpoints: []string{c.members[leader].Endpoint()}, Logger: zap.NewNop()}
	if cfg.TLS, err = c.clientTLS(); err != nil {
		return "", err
	}
	if _, err := snapshot.NewV3(zap.NewNop()).Save(ctx, cfg, f.Name()); err != nil {
		return "", fmt.Errorf("take a snapshot: %w", err)
	}
	return f.Name(), nil
}

// Restore kills all members and starts them again with what a snapshot holds,
// as an administrator restores a backup. Revisions go back. The cluster's id
// stays the same, since etcd derives it from the peers' URLs and the token.
func (c *Cluster) Restore(ctx context.Context, file string) error { return c.restore(ctx, file) }

// RestoreAnew is Restore with another token, so that the cluster has another id
// as well.
func (c *Cluster) RestoreAnew(ctx context.Context, file string) error {
	c.token = "etcdtest-" + rand.Text()
	return c.restore(ctx, file)
}

func (c *Cluster) restore(ctx context.Context, file string) error {
	for _, m := range c.members {
		m.Kill()
	}
	for i, m := range c.members {
		if err := os.RemoveAll(c.dataDir(i)); err != nil {
			return err
		}
		err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath:        file,
			Name:                m.name,
			OutputDataDir:       filepath.Clean(c.dataDir(i)),
			PeerURLs:            []string{m.peerURL()},
			InitialCluster:      c.initial(),
			InitialClusterToken: c.token,
		})
		if err != nil {
			return fmt.Errorf("restore member %s: %w", m.name, err)
		}
	}
	return c.startAll(ctx)
}

func (c *Cluster) clientTLS() (*tls.Config, error) {
	t := c.opts.TLS
	if t == nil {
		return nil, nil
	}
	info := transport.TLSInfo{TrustedCAFile: t.CA, CertFile: t.Cert, KeyFile: t.Key}
	if t.ClientCert != "" {
		info.CertFile, info.KeyFile = t.ClientCert, t.ClientKey
	}
	return info.ClientConfig()
}
