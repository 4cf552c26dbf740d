package sdk

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// Main is the main function of a plugin's binary: it serves the plugin to the
// supervisor that started it, and never returns. Run by hand it answers
// questions; see --help. It takes the process over: standard input, standard output
// (what is printed goes to the supervisor's log) and SIGTERM, SIGINT, SIGHUP and
// SIGPIPE, which it ignores while it serves. What main does before it is done at
// each start, before the supervisor hears anything: keep it short and print
// nothing.
func Main(p Plugin) {
	if os.Getenv(wire.CookieKey) == wire.CookieValue {
		os.Exit(hosted(p))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	exit := byHand{p, os.Stdin, os.Stdout, os.Stderr}.run(ctx, os.Args[1:])
	stop()
	os.Exit(exit)
}
