package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/deputy-ha/deputy/supervisor"
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
	k, start := here(t)
	a := k.app
	a.stdout, a.env = io.Discard, func(string) string { return "" }
	start("orders", slowCluster{impatient: func() { syscall.Kill(os.Getpid(), syscall.SIGINT) }})
	for _, err := a.local(t.Context(), "orders"); err != nil && !t.Failed(); _, err = a.local(t.Context(), "orders") {
	}

	c := a.pauseCommand()
	c.SetArgs([]string{"orders"})
	c.SilenceUsage, c.SilenceErrors = true, true
	err := c.ExecuteContext(t.Context())
	if !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "may come into force all the same; `deputy status orders` tells") {
		t.Errorf("interrupted before the answer: %v", err)
	}
}
