package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// acts are what a plugin can be called for by hand.
func acts() []string {
	return []string{"promote", "demote", "renew", "check", "rank", "follow", "fence"}
}

// A call is one act by hand.
type call struct {
	origin
	act      string
	term     uint64
	mode     string
	reason   string
	timeout  time.Duration
	leaseFor time.Duration
	role     string
	primary  string
	previous string
	mine     string
	others   map[string]string
	level    *slog.LevelVar
}

func (a *app) pluginCallCommand() *cobra.Command {
	k := call{level: new(slog.LevelVar)}
	k.level.Set(slog.LevelWarn)
	c := a.prints(&cobra.Command{
		Use:   "call NAME|PATH ACT --settings FILE",
		Short: "Call a plugin once, by hand",
		Long: "Start a plugin, have it do one act, show what it says and what came of it, and end it.\n" +
			"What it promoted stays. ACT is one of " + strings.Join(acts(), ", ") + ".\n\n" +
			"It really acts. No election stands behind a promote by hand: nothing keeps another\n" +
			"node from being primary as well, and nobody renews a lease for it. On a node where\n" +
			"`deputy run` has the service, use `deputy switchover`.\n\n" +
			"The exit status is 0 when the act is done or nothing had to be done, or the check says\n" +
			"fit; else 1. With any other outcome than failed-unchanged or stale-term the part may\n" +
			"be primary: demote it.",
		Example: "  deputy plugin call vip check --settings address.toml --role primary\n" +
			"  deputy plugin call vip demote --settings address.toml\n" +
			"  deputy plugin call exec promote --service orders-db --term 7",
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) < 2:
				return mark(fmt.Errorf("%s needs a NAME or PATH, and an ACT: %s", c.Name(), strings.Join(acts(), ", ")), errUsage)
			case len(args) > 2:
				return mark(fmt.Errorf("%s takes one plugin and one ACT, and got %q as well", c.Name(), args[2]), errUsage)
			case !slices.Contains(acts(), args[1]):
				return mark(fmt.Errorf("%q is no act of a plugin: there are %s", args[1], strings.Join(acts(), ", ")), errUsage)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			k.act = args[1]
			if !c.Flags().Changed("lease-for") && (k.act == "demote" || k.act == "follow" || k.act == "fence") {
				k.leaseFor = 0
			}
			return a.pluginCall(ctx, args[0], k)
		},
	})
	k.flags(c)
	f := c.Flags()
	f.Uint64Var(&k.term, "term", 1, "term of the act")
	f.StringVar(&k.mode, "mode", string(sdk.Planned), "of a demote: planned or forced")
	f.StringVar(&k.reason, "reason", string(sdk.ReasonSwitchover), "one word that the plugin is told")
	f.DurationVar(&k.timeout, "timeout", 30*time.Second, "how long it may take")
	f.DurationVar(&k.leaseFor, "lease-for", time.Minute, "of promote and renew: the lease is said to hold for so long")
	f.StringVar(&k.role, "role", string(sdk.RoleStandby), "of a check: the role to be fit for: primary, standby or candidate")
	f.StringVar(&k.primary, "primary", "", "NODE or NODE=ADDRESS: of follow who is primary, of fence the victim")
	f.StringVar(&k.previous, "previous", "", "NODE or NODE=ADDRESS that was primary before")
	f.StringVar(&k.mine, "mine", "", "of rank: this node's position, as its check tells it")
	f.StringToStringVar(&k.others, "other", nil, "of rank: NODE=POSITION of another node; may be given several times")
	f.TextVar(k.level, "log-level", k.level, "of what it logs, to standard error: debug, info, warn or error")
	return c
}

// A called is what `deputy plugin call -o json` prints.
type called struct {
	Plugin   string               `json:"plugin"`
	Act      string               `json:"act"`
	Result   *sdk.Result          `json:"result,omitempty"` // of promote, demote, follow and fence
	Health   *sdk.Health          `json:"health,omitempty"` // of check
	Orders   map[string]sdk.Order `json:"orders,omitempty"` // of rank
	Progress []string             `json:"progress,omitempty"`
	Took     time.Duration        `json:"took_ns"`
	Error    string               `json:"error,omitempty"`
}

func (k call) check() error {
	switch {
	case k.mode != string(sdk.Planned) && k.mode != string(sdk.Forced):
		return mark(fmt.Errorf("--mode is planned or forced, not %q", k.mode), errUsage)
	case k.timeout <= 0:
		return mark(fmt.Errorf("--timeout is more than nothing, not %s", k.timeout), errUsage)
	case (k.act == "follow" || k.act == "fence") && k.primary == "":
		return mark(fmt.Errorf("%s needs --primary NODE=ADDRESS: whom", k.act), errUsage)
	case k.act == "rank" && k.mine == "":
		return mark(errors.New("rank needs --mine POSITION and --other NODE=POSITION"), errUsage)
	case k.act == "check" && !slices.Contains([]sdk.Role{sdk.RolePrimary, sdk.RoleStandby, sdk.RoleCandidate}, sdk.Role(k.role)):
		return mark(fmt.Errorf("--role is primary, standby or candidate, not %q", k.role), errUsage)
	}
	return nil
}

func (a *app) pluginCall(ctx context.Context, what string, k call) error {
	if err := k.check(); err != nil {
		return err
	}
	p, err := a.pick(what)
	if err != nil {
		return err
	}
	host, part, settings, err := k.of(a, p)
	if err != nil {
		return err
	}
	clock, err := boottime.New()
	if err != nil {
		return err
	}
	defer clock.Close()
	host.Clock, host.Log = clock, newLog(a.stderr, a.env, k.level)
	hosted, err := plugin.New(host, part)
	if err != nil {
		return mistaken(settings, err)
	}
	if k.act == "promote" {
		a.warnOfPromote(what, k)
	}
	opening, cancel := context.WithTimeout(ctx, openTime)
	err = hosted.Open(opening)
	cancel()
	if err != nil {
		return mistaken(settings, err)
	}
	out := called{Plugin: p.use, Act: k.act}
	began := time.Now()
	err = k.do(ctx, a, host, hosted, &out)
	out.Took = time.Since(began)

	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if left := hosted.Close(closing); left != nil {
		fmt.Fprintf(a.stderr, "deputy: warning: %v\n", left)
	}
	if err != nil {
		out.Error = err.Error()
		err = fmt.Errorf("%s %s: %w", k.act, p.use, err)
	}
	if r := out.Result; r != nil && r.Outcome == sdk.OutcomeUnknown && k.act != string(sdk.Fence) {
		fmt.Fprintf(a.stderr, "deputy: warning: the part may be primary here. A demote that is done says that it is not: %s\n", k.demotion(what))
	}
	if a.json() {
		return orPrint(err, a.printJSON(out))
	}
	fmt.Fprint(a.stdout, out.text())
	return err
}

// demotion is the command that takes back a promote.
func (k call) demotion(what string) string {
	words := []string{"deputy plugin call", what, string(sdk.Demote)}
	for _, o := range []struct{ flag, value string }{{"--settings", k.file}, {"--service", k.service}, {"--part", k.part}} {
		if o.value != "" {
			words = append(words, o.flag, o.value)
		}
	}
	return strings.Join(words, " ")
}

func (a *app) warnOfPromote(what string, k call) {
	fmt.Fprintf(a.stderr, "deputy: warning: no election stands behind this promote. Nothing keeps another node from being\n"+
		"primary as well, and nobody renews its lease: what expires by itself does in %s, the rest stays\n"+
		"until it is demoted, here: %s\n", k.leaseFor, k.demotion(what))
	if k.service != "" && slices.Contains(a.daemons(), k.service) {
		fmt.Fprintf(a.stderr, "deputy: warning: `deputy run` has %s on this node, and is not told: see `deputy status %s`\n", k.service, k.service)
	}
}

// do has the act done, and fills in what came of it.
func (k call) do(ctx context.Context, a *app, host plugin.Host, p plugin.Plugin, out *called) error {
	ctx, cancel := context.WithTimeoutCause(ctx, k.timeout+closeTime, fmt.Errorf("not over within %s", k.timeout+closeTime))
	defer cancel()
	if c := sdk.Capability(k.act); !p.Describe().Can(c) {
		return fmt.Errorf("it can only %s", can(p.Describe().Capabilities))
	}
	switch k.act {
	case "check":
		asked, cancel := context.WithTimeout(ctx, k.timeout)
		defer cancel()
		h, err := p.Check(asked, sdk.Role(k.role), sdk.Term(k.term))
		if err != nil {
			return err
		}
		out.Health = &h
		if !h.Fit {
			return errors.New("not fit to be " + k.role)
		}
		return nil
	case "renew":
		return p.Renew(ctx, sdk.Now().Add(k.leaseFor))
	case "rank":
		orders, err := p.Rank(ctx, k.mine, k.others)
		out.Orders = orders
		return err
	}
	var mu sync.Mutex // what it says comes from elsewhere
	r := p.Do(ctx, k.transition(host), func(said string) {
		mu.Lock()
		defer mu.Unlock()
		out.Progress = append(out.Progress, said)
		if !a.json() {
			fmt.Fprintf(a.stdout, "  %s\n", tidy(said))
		}
	})
	mu.Lock()
	defer mu.Unlock()
	out.Result = &r
	return r.Err()
}

func (k call) transition(host plugin.Host) sdk.Transition {
	t := sdk.Transition{
		ID: fmt.Sprintf("by-hand-%d-%s", os.Getpid(), k.act), Action: sdk.Action(k.act), Mode: sdk.Mode(k.mode),
		Service: host.Service, Node: host.Node, Term: sdk.Term(k.term), Reason: sdk.Reason(k.reason), Cause: "called by hand",
		Attempt: 1, Timeout: k.timeout, Previous: peerOf(k.previous), Primary: peerOf(k.primary),
	}
	if k.leaseFor > 0 {
		t.LeaseUntil = sdk.Now().Add(k.leaseFor)
	}
	if k.act == "fence" {
		t.Previous = t.Primary
	}
	if k.act == "promote" && k.primary == "" {
		t.Primary = sdk.Peer{Node: host.Node}
	}
	return t
}

// peerOf reads NODE or NODE=ADDRESS.
func peerOf(text string) sdk.Peer {
	node, address, _ := strings.Cut(text, "=")
	return sdk.Peer{Node: node, Address: address}
}

// text is what an act came to, for people. A failure is told as the command's
// error.
func (c called) text() string {
	took := short(c.Took)
	detail := func(s string) string {
		if s == "" {
			return ""
		}
		return ": " + tidy(s)
	}
	switch {
	case c.Health != nil:
		word := "fit"
		if !c.Health.Fit {
			word = "not fit"
		}
		text := fmt.Sprintf("%s %s: %s after %s%s\n", c.Act, c.Plugin, word, took, detail(c.Health.Detail))
		if c.Health.Position != "" {
			text += "position: " + tidy(c.Health.Position) + "\n"
		}
		return text
	case c.Error != "":
		return ""
	case c.Result != nil:
		return fmt.Sprintf("%s %s: %s after %s%s\n", c.Act, c.Plugin, c.Result.Outcome, took, detail(c.Result.Detail))
	case c.Orders != nil:
		var b strings.Builder
		for _, node := range slices.Sorted(maps.Keys(c.Orders)) {
			fmt.Fprintf(&b, "compared with %s: %s\n", tidy(node), c.Orders[node])
		}
		return b.String()
	}
	return fmt.Sprintf("%s %s: done after %s\n", c.Act, c.Plugin, took)
}
