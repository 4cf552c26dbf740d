package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// A slowCluster gets an order that it does not answer: whoever waits for that
// loses patience.
type slowCluster struct {
	supervisor.Cluster
	impatient func()
}

func (slowCluster) State(context.Context, string) (supervisor.State, error) {
	return supervisor.State{}, nil
}

func (c slowCluster) Pause(ctx context.Context, _ string, _ supervisor.Pause) error {
	c.impatient()
	<-ctx.Done()
	return ctx.Err()
}

func TestInterruptedOrderTellsThatItMayCome(t *testing.T) {
	dir, err := os.MkdirTemp("", "d") // paths of sockets have to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := &app{paths: paths{run: dir}, stdout: io.Discard, stderr: io.Discard, env: func(string) string { return "" }}
	if err := os.Mkdir(a.dir("orders"), 0o755); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(errors.New("the test ends"))
	s := &control.Server{
		Socket: filepath.Join(a.dir("orders"), control.SocketName), Member: sitter("orders"), Log: slog.New(slog.DiscardHandler),
		Cluster: slowCluster{impatient: func() { syscall.Kill(os.Getpid(), syscall.SIGINT) }},
	}
	serving.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})

	for _, err := a.local(ctx, "orders"); err != nil && !t.Failed(); _, err = a.local(ctx, "orders") {
	}

	c := a.pauseCommand()
	c.SetArgs([]string{"orders"})
	c.SilenceUsage, c.SilenceErrors = true, true
	err = c.ExecuteContext(ctx)
	if !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "may come into force all the same; `deputy status orders` tells") {
		t.Errorf("interrupted before the answer: %v", err)
	}
}
