package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

const usage = `usage: demo [FLAGS]          what deputy does, in less than two minutes
       demo bench [FLAGS]    how fast it does it

The demo starts an etcd of three members and three nodes, runs a binlog parser
that must run on exactly one of them, and takes its primary away in three ways:
by a switchover, by SIGKILL of the supervisor, and by the loss of the node. For
each it prints how long nobody answered, and that two nodes never did.
As root it makes namespaces of its own, in which a real address moves.

STAY=1 in the environment keeps everything up afterwards to play with.

Flags:
`

func main() {
	runAsPart()
	os.Exit(run())
}

// runAsPart never returns in a member of etcd or a node, which are this program too.
func runAsPart() {
	etcdtest.Main()
	if len(os.Args) > 1 && os.Args[1] == "node" {
		if err := runNode(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "demo: node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// errSignal ends everything because somebody asked for it.
var errSignal = errors.New("told to stop")

func run() int {
	args, name := os.Args[1:], "demo"
	bench := len(args) > 0 && args[0] == "bench"
	if bench {
		args, name = args[1:], "demo bench"
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
		if bench {
			fmt.Fprint(flags.Output(), "\nParts of the benchmark:\n")
			for _, p := range parts() {
				fmt.Fprintf(flags.Output(), "  %-13s %s\n", p.name, p.about)
			}
		}
	}
	bin := flags.String("bin", "", "the `DIR` with the binaries deputy, deputy-plugin-vip and binlog (default: that of demo itself)")
	loopback := flags.Bool("loopback", false, "make no namespaces, also as root")
	quick := flags.Bool("quick", false, "pause no longer than must be")
	verbose := flags.Bool("v", false, "show what etcd and the nodes complain about")
	var b benchFlags
	if bench {
		b.register(flags)
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 64
	case flags.NArg() > 0:
		flags.Usage()
		return 64
	}
	if *bin == "" {
		self, err := os.Executable()
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
		*bin = filepath.Dir(self)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() { // ends with the process
		s := <-signals
		cancel(fmt.Errorf("%w: %s", errSignal, s))
	}()

	dir, inside := os.LookupEnv(insideEnv)
	var err error
	if !inside {
		if dir, err = makeDir(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if !*loopback && os.Geteuid() == 0 {
			code, err := goInside(ctx, dir)
			if err == nil {
				return code
			}
			fmt.Fprintf(os.Stderr, "demo: no namespaces here, so no address moves: %v\n", err)
		}
	} else if err := settleIn(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	o := options{namespaces: inside, dir: dir, bin: *bin, quick: *quick, log: io.Discard}
	if *verbose {
		o.log = os.Stderr
	}
	if bench {
		err = b.run(ctx, o, os.Stdout)
	} else {
		err = show(ctx, o, os.Getenv("STAY") == "1")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// closeFor is how long it may take to put everything away.
const closeFor = 20 * time.Second
