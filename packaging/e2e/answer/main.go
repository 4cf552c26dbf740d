// Answer runs on each host of the e2e tests and answers for it, so that a
// prober outside hears which host has the address that it asks for.
//
// What it guarantees: an answer goes out at the address that was asked, and
// only while the host has it.
//
// What it does not guarantee: anything about deputy, which it does not know.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "answer: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, a port; got %d", len(args))
	}
	port, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return fmt.Errorf("read the port: %w", err)
	}
	node, err := os.Hostname()
	if err != nil {
		return err
	}
	return prober.Answer(ctx, node, uint16(port), ready)
}

// ready tells systemd, where that waits for it.
func ready() {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte("READY=1"))
	_ = conn.Close()
}
