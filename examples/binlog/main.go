package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const usage = `usage: binlog COMMAND [FLAGS]

Hooks, called by deputy:
  start     promote: starts the parser, returns when it answers
  stop      demote: ends the parser, returns when it is gone
  check     fit while the parser answers
  show      up or down: promote and demote of a file that shows the role

  parse     the parser itself, as start runs it
  run       the parser itself, as binlog-parser.service runs it

"binlog COMMAND -h" lists the flags of a command.
`

// Exit codes of an act, as deputy reads them.
const (
	exitDone      = 0
	exitUnknown   = 1
	exitAlready   = 10
	exitUnchanged = 75
	exitStale     = 40
	exitUsage     = 64
)

// The codes of a check are those of Nagios plugins.
const exitCritical = 2

// An act is what deputy told this process about its call.
type act struct {
	node       string
	term       uint64
	own        string        // the address of the node that is or will be primary
	forced     bool          // the lease is lost: stop by any means
	leaseUntil time.Duration // since boot; zero when none is held
	deadline   time.Time     // when the act has to be over
	stateDir   string
}

// margin is what an act leaves of its timeout for reporting its outcome.
const margin = 50 * time.Millisecond

func newAct(env func(string) string) act {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(env(name), 10, 64)
		return n
	}
	timeout := 5 * time.Second
	if ms := number("DEPUTY_TIMEOUT_MS"); ms > 0 {
		timeout = time.Duration(ms) * time.Millisecond
	}
	a := act{
		node:       env("DEPUTY_NODE"),
		term:       uint64(number("DEPUTY_TERM")),
		own:        env("DEPUTY_PRIMARY_ADDRESS"),
		forced:     env("DEPUTY_MODE") == "forced",
		leaseUntil: time.Duration(number("DEPUTY_LEASE_UNTIL_MS")) * time.Millisecond,
		deadline:   time.Now().Add(timeout - min(margin, timeout/4)),
		stateDir:   env("DEPUTY_STATE_DIR"),
	}
	return a
}

// mayServe reports whether the lease still holds. What makes a part serve asks
// right before it does.
func (a act) mayServe() error {
	if a.leaseUntil != 0 && sinceBoot() >= a.leaseUntil {
		return errors.New("the lease has run out")
	}
	return nil
}

// sinceBoot reads CLOCK_BOOTTIME, the clock of deputy's deadlines. It is the
// same for all processes of a machine.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock exists since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// used is the CPU time of this process so far: it began at least so long ago,
// as starting a process takes time as well.
func used() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err) // the clock exists since Linux 2.6.12
	}
	return time.Duration(ts.Nano())
}

func main() {
	began := sinceBoot() - used()
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	command := os.Args[1]
	flags := flag.NewFlagSet("binlog "+command, flag.ExitOnError)
	p := parser{}
	trace := flags.String("trace", "", "append when this call began and ended to `FILE`")
	flags.StringVar(&p.positions, "positions", "", "the `FILE` that parsed positions are appended to, shared by all nodes")
	flags.StringVar(&p.port, "port", "7306", "the UDP `PORT` that the parser answers on")
	flags.StringVar(&p.own, "own", "", "this node's own `ADDRESS` (default: as deputy says)")
	flags.StringVar(&p.service, "service", "", "the service's `ADDRESS`, if it moves with the role")
	flags.StringVar(&p.stateDir, "state", "", "this node's state `DIR` (default: as deputy says)")

	a := newAct(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var run func() (int, error)
	switch command {
	case "start":
		run = func() (int, error) { return p.start(a) }
	case "stop":
		run = func() (int, error) { return p.stop(a) }
	case "check":
		run = func() (int, error) { return p.check(a) }
	case "parse":
		run = func() (int, error) { return p.parse(ctx, a) }
	case "run":
		run = func() (int, error) { return p.run(ctx, a) }
	case "show":
		run = func() (int, error) { return show(a, flags.Args(), p.stateDir) }
	case "-h", "-help", "--help", "help":
		fmt.Print(usage)
		return
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	_ = flags.Parse(os.Args[2:]) // exits on error
	if p.stateDir == "" {
		p.stateDir = a.stateDir
	}
	if p.own == "" {
		p.own = a.own
	}

	code, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", command, err)
	}
	if *trace != "" {
		_ = appendLine(*trace, fmt.Sprintf("%s %s %d %d %d", a.node, command, began, sinceBoot(), code))
	}
	os.Exit(code)
}

// appendLine adds a line in one write, so that lines of several processes do
// not mix.
func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}
