package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// The exit codes of a plugin that is run by hand. Those of acts are what deputy
// takes from scripts, and those of a check what Nagios does.
const (
	exitDone    = 0
	exitUnknown = 1
	exitAlready = 10
	exitRefused = 20
	exitStale   = 40
	exitUsage   = 64 // EX_USAGE of sysexits.h
	exitRetry   = 75 // EX_TEMPFAIL
	exitConfig  = 78 // EX_CONFIG

	exitCritical   = 2
	exitUnanswered = 3
)

// acts are what can be called by hand.
func (b byHand) acts() []string {
	var all []string
	for _, c := range b.p.capabilities {
		if c != CanWatch { // that has no end
			all = append(all, string(c))
		}
	}
	return all
}

// call has one act done in this process.
func (b byHand) call(ctx context.Context, args []string) int {
	t := Transition{ID: "by-hand", Attempt: 1, Reason: ReasonSwitchover, Cause: "called by hand", Service: "by-hand"}
	t.Node, _ = os.Hostname()
	f := flags(fmt.Sprintf("call %s [flags] [NODE=POSITION…]", strings.Join(b.acts(), "|")))
	file := f.String("settings", "", "the settings, a `file` with a JSON object, or - for the standard input")
	timeout := f.Duration("timeout", 30*time.Second, "how long it may take")
	mode := f.String("mode", string(Planned), "planned or forced")
	role := f.String("role", string(RolePrimary), "of a check, what to be fit for: primary, standby or candidate")
	until := f.Duration("until-in", 10*time.Second, "how long the lease still holds")
	mine := f.String("mine", "", "of a rank, the position of this node; those of the others are arguments")
	term := f.Uint64("term", 1, "the term")
	f.StringVar(&t.Service, "service", t.Service, "the service's name")
	f.StringVar(&t.Node, "node", t.Node, "this node's name")
	f.StringVar(&t.StateDir, "state-dir", "", "where it keeps things; a temporary directory by default")
	f.StringVar(&t.Primary.Node, "primary", "", "of a follow, the primary's node; of a fence, the victim's")
	f.StringVar(&t.Primary.Address, "primary-address", "", "and its address")
	rest, exit, ok := b.parse(f, args)
	if !ok {
		return exit
	}
	wrong := func(format string, args ...any) int {
		fmt.Fprintf(b.err, format+"\n", args...)
		return exitUsage
	}
	switch {
	case len(rest) == 0:
		return b.usage(b.err, f)
	case !slices.Contains(b.acts(), rest[0]):
		return wrong("%s cannot %s; %s", b.p.name, rest[0], suggest(rest[0], b.acts()))
	case *mode != string(Planned) && *mode != string(Forced):
		return wrong("unknown mode %q; there are planned and forced", *mode)
	case len(rest) > 1 && rest[0] != string(CanRank):
		return wrong("unknown argument %q", rest[1])
	}
	t.Action, t.Mode, t.Term, t.Timeout, t.LeaseUntil = Action(rest[0]), Mode(*mode), Term(*term), *timeout, Now().Add(*until)
	if t.Action == Fence {
		t.Previous = t.Primary
	}

	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done within %s", *timeout))
	defer cancel()
	config, err := b.read(*file)
	if err != nil {
		return b.wrong(err)
	}
	if t.StateDir == "" {
		if t.StateDir, err = os.MkdirTemp("", "deputy-state-"); err == nil {
			defer os.RemoveAll(t.StateDir)
		}
	} else if t.StateDir, err = filepath.Abs(t.StateDir); err == nil {
		err = os.MkdirAll(t.StateDir, 0o700)
	}
	if err != nil {
		fmt.Fprintln(b.err, "make state directory:", err)
		return exitUnknown
	}
	s := serverOf(context.WithoutCancel(ctx), b.p, slog.New(slog.NewTextHandler(b.err, nil)), Now)
	r, err := s.Configure(ctx, &wire.ConfigureRequest{Service: t.Service, Node: t.Node, Part: b.p.name, StateDir: t.StateDir, Config: config})
	if err != nil {
		return b.answered(err)
	}
	if len(r.Mistakes) > 0 {
		for _, m := range r.Mistakes {
			fmt.Fprintln(b.err, strings.TrimPrefix(m.Key+": "+m.Message, ": "))
		}
		return exitConfig
	}
	defer func() { _ = s.drain(context.WithoutCancel(ctx)) }()
	switch Capability(t.Action) {
	case CanCheck:
		return b.check(ctx, s, Role(*role), t.Term)
	case CanRenew:
		_, err = s.Renew(ctx, &wire.RenewRequest{LeaseUntilNs: int64(t.LeaseUntil)})
		return b.answered(err, "done")
	case CanRank:
		others := map[string]string{}
		for _, arg := range rest[1:] {
			node, position, ok := strings.Cut(arg, "=")
			if !ok {
				return wrong("%q is not NODE=POSITION", arg)
			}
			others[node] = position
		}
		r, err := s.Rank(ctx, &wire.RankRequest{Mine: *mine, Others: others})
		return b.answered(err, ranks(r.GetOrders())...)
	}
	return b.act(ctx, s, &t)
}

// act has a transition done and says what it came to.
func (b byHand) act(ctx context.Context, s *server, t *Transition) int {
	do, err := s.method(t.Action)
	if err != nil {
		return b.answered(err)
	}
	began := time.Now()
	rep := &report{progress: func(percent float64, message string) {
		if percent >= 0 {
			message = fmt.Sprintf("%3.0f%% %s", percent, message)
		}
		fmt.Fprintf(b.err, "%8s  %s\n", time.Since(began).Round(time.Millisecond), message)
	}}
	ctx, a := s.ask(context.WithValue(ctx, reportKey{}, rep), t)
	r := s.act(ctx, a, t, rep, do)
	text := string(r.Outcome)
	if r.Refused {
		text = "refused"
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	if r.RetryAfter > 0 {
		text += fmt.Sprintf(" (not again before %s)", r.RetryAfter)
	}
	fmt.Fprintln(b.out, text)
	switch {
	case r.Outcome == OutcomeDone:
		return exitDone
	case r.Outcome == OutcomeAlready:
		return exitAlready
	case r.Outcome == OutcomeStaleTerm:
		return exitStale
	case r.Refused:
		return exitRefused
	case r.Outcome == OutcomeUnchanged:
		return exitRetry
	}
	return exitUnknown
}

// check asks once and answers as Nagios plugins do.
func (b byHand) check(ctx context.Context, s *server, role Role, term Term) int {
	r, err := s.Check(ctx, &wire.CheckRequest{Role: string(role), Term: uint64(term)})
	if err != nil {
		fmt.Fprintln(b.out, "no answer:", words(err))
		return exitUnanswered
	}
	text, exit := "fit", exitDone
	if !r.Fit {
		text, exit = "not fit", exitCritical
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	if r.Position != "" {
		text += "\nposition " + r.Position
	}
	fmt.Fprintln(b.out, text)
	return exit
}

// answered prints the answer of a call, or why there is none.
func (b byHand) answered(err error, lines ...string) int {
	if err != nil {
		fmt.Fprintln(b.err, words(err))
		return exitUnknown
	}
	for _, line := range lines {
		fmt.Fprintln(b.out, line)
	}
	return exitDone
}

// words is what an error of a call says, without the words of gRPC.
func words(err error) string { return status.Convert(err).Message() }

// ranks writes orders, a node a line.
func ranks(orders map[string]wire.Order) []string {
	var lines []string
	for _, node := range slices.Sorted(maps.Keys(orders)) {
		word := Incomparable
		for _, o := range []Order{Ahead, Equal, Behind} {
			if wireOrders(map[string]Order{"": o})[""] == orders[node] {
				word = o
			}
		}
		lines = append(lines, node+" "+string(word))
	}
	return lines
}
