package etcdtest

import (
	"context"
	"time"
)

// A T is the part of testing.TB that StartT needs. Programs that are no tests
// use this package as well and have no use for package testing.
type T interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Fatal(args ...any)
	Errorf(format string, args ...any)
}

// StartT starts a cluster for a test and closes it at the test's end. Without
// a cluster the test fails.
func StartT(t T, opts Options) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close etcd: %v", err)
		}
	})
	return c
}
