package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/etcd"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

func (a *app) cleanupCommand() *cobra.Command {
	behind := false
	c := &cobra.Command{
		Use:    "cleanup SERVICE",
		Short:  "Demote what a supervisor that is dead has left primary",
		Hidden: true,
		Long: "Demote what a supervisor that is dead has left primary, by the definition last in\n" +
			"force. This is what deputy@SERVICE.service runs when its process has ended, and\n" +
			"deputy-lease@SERVICE.service, with --behind, when the lease was not renewed. What\n" +
			"the next supervisor can still take over stays as it is. It may be run at any time.",
		Args: one("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.cleanup(c.Context(), args[0], behind)
		},
	}
	c.Flags().BoolVar(&behind, "behind", false, "end a supervisor that has not demoted in time first")
	return c
}

// The bounds of a clean-up: of all of it, of ending processes, and of giving
// the lease back, which runs out by itself otherwise.
const (
	cleanupTime = time.Minute
	endingTime  = 2 * time.Second
	givingTime  = 3 * time.Second
	cleanupTrys = 3
)

// comingTime is what the next supervisor needs at least before it can take
// anything over: RestartSec= of deputy@.service, and the start of a process.
const comingTime = 250 * time.Millisecond

func (a *app) cleanup(ctx context.Context, service string, behind bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cleanupTime, fmt.Errorf("not within %s", cleanupTime))
	defer cancel()
	defer a.extend(ctx)()
	log := newLog(a.stderr, a.env, slog.LevelInfo).With("service", service)
	unit := systemd.Supervisor(service)
	if behind {
		unit = systemd.Gate(service)
	}
	a.findCredentials(unit)
	if killed, err := systemd.KillRest(ctx, unit); err != nil {
		log.Error("processes of the supervisor not ended", "cause", err)
	} else if killed > 0 {
		log.Warn("processes of the supervisor ended", "count", killed)
	}
	clock, err := boottime.New()
	if err != nil {
		return err
	}
	defer clock.Close()
	boot, err := boottime.BootID()
	if err != nil {
		return err
	}
	c := &cleaner{a: a, service: service, behind: behind, sight: rundir.Sight(a.dir(service)), clock: clock, boot: boot, log: log}
	if !behind {
		c.alone = !a.comesAgain(ctx, service)
	}
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("clean up behind %s: %w", service, err)
	}
	return nil
}

// extend asks PID 1 for more time again and again, until the returned func is
// called: it gives so little that a clean-up which hangs is noticed.
func (a *app) extend(ctx context.Context) func() {
	n, err := systemd.NewNotifier(a.env)
	if err != nil || n == nil {
		return func() {}
	}
	ctx, end := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			_ = n.Send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", endingTime.Microseconds())) // soon again
			select {
			case <-time.After(endingTime / 4):
			case <-ctx.Done():
			}
		}
	})
	return func() {
		end(errEnded)
		asking.Wait()
		n.Close()
	}
}

// findCredentials tells where the credentials of a unit are, which systemd 257
// does not tell its ExecStopPost.
func (a *app) findCredentials(unit string) {
	const name = "CREDENTIALS_DIRECTORY"
	dir := filepath.Join("/run/credentials", unit)
	if _, err := os.Stat(dir); err != nil || a.env(name) != "" || systemd.OwnUnit() != unit {
		return
	}
	_ = os.Setenv(name, dir) // which no name like this makes fail
}

// comesAgain reports whether systemd starts another supervisor of the service;
// not knowing it, that it does.
func (a *app) comesAgain(ctx context.Context, service string) bool {
	unit := systemd.Supervisor(service)
	if systemd.OwnUnit() != unit {
		return true
	}
	if a.env("EXIT_CODE") == "exited" && slices.Contains([]string{fmt.Sprint(exitUsage), fmt.Sprint(exitConfig)}, a.env("EXIT_STATUS")) {
		return false // RestartPreventExitStatus
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, fmt.Errorf("not within %s", askTime))
	defer cancel()
	u, err := a.bus.Unit(ctx, unit)
	return err != nil || u.Job != "stop"
}

// A cleaner demotes what a supervisor has left primary.
type cleaner struct {
	a       *app
	service string
	behind  bool
	alone   bool // no supervisor comes after this
	sight   rundir.Sight
	clock   *boottime.Clock
	boot    string
	log     *slog.Logger
}

// A verdict is what is to be done about what was found.
type verdict string

const (
	nothing  verdict = "nothing"   // nothing is primary here
	leave    verdict = "leave"     // somebody else sees to it
	giveBack verdict = "give back" // nothing is primary, but the lease is held
	demote   verdict = "demote"
)

// judge decides what to do, and says why, about what was noted; damaged is why
// that cannot be relied on. Where it is abandoned no supervisor lives that could
// still see to it.
func (c *cleaner) judge(note supervisor.Note, damaged error, ttl time.Duration, now sdk.Instant, abandoned bool) (verdict, string) {
	timing := supervisor.NewTiming(ttl)
	t := note.Tenure
	switch {
	case damaged != nil:
		return demote, damaged.Error()
	case t == nil && len(note.Promoted) == 0:
		return nothing, "nothing is primary here"
	case t == nil:
		return demote, "the lease was lost before everything was demoted"
	case t.Boot != c.boot:
		return demote, "the lease is of another boot"
	}
	lost, trigger := t.Until.Add(timing.Lost-timing.Until), t.Until.Add(timing.Trigger-timing.Until)
	switch {
	case c.behind && now < trigger && (now < lost || !abandoned):
		return leave, fmt.Sprintf("the lease holds for another %s, and its supervisor sees to it", trigger.Sub(now).Round(time.Millisecond))
	case !c.behind && !c.alone && now.Add(comingTime) < lost:
		return leave, fmt.Sprintf("the next supervisor can take it over within %s", lost.Sub(now).Round(time.Millisecond))
	case len(note.Promoted) == 0:
		return giveBack, "everything is demoted, and the lease is held"
	}
	return demote, "its lease was not renewed in time"
}

// ttl is that of the definition in force.
func (c *cleaner) ttl() time.Duration {
	return gate{sight: c.sight}.ttl()
}

func (c *cleaner) run(ctx context.Context) error {
	note, damaged := c.sight.Note()
	v, why := c.judge(note, damaged, c.ttl(), c.clock.Now(), isAbandoned(c.sight))
	if v == nothing {
		return nil
	}
	if v == leave {
		c.log.Info("left as it is", "cause", why)
		return nil
	}
	dir, err := c.hold(ctx)
	if err != nil || dir == nil {
		return err
	}
	tenure, err := c.settle(ctx, dir)
	// The next supervisor need not wait until etcd answers: its tenure is another.
	if err := errors.Join(err, dir.Close()); err != nil || tenure == nil {
		return err
	}
	c.giveBack(ctx, *tenure)
	return nil
}

// settle sees to what is primary, and notes that. It returns the tenure that is
// over by that, if there was one.
func (c *cleaner) settle(ctx context.Context, dir *rundir.Dir) (*supervisor.Tenure, error) {
	// Whoever held it may have seen to it by now.
	note, damaged := dir.Load()
	v, why := c.judge(note, damaged, c.ttl(), c.clock.Now(), true)
	term := note.Last.Term
	if note.Tenure != nil {
		term = max(term, note.Tenure.Term)
	}
	switch v {
	case demote:
		c.log.Warn("demotes what was left primary", "term", uint64(term), "cause", why)
		if err := c.demote(ctx, dir, term); err != nil {
			return nil, err
		}
	case giveBack:
	default:
		c.log.Info("left as it is", "cause", why)
		return nil, nil //nolint:nilnil // and nothing is over
	}
	after := supervisor.Note{Role: sdk.RoleStandby, Cause: "demoted behind a supervisor that was dead: " + why, Last: note.Last}
	if t := note.Tenure; t != nil && t.Term > after.Last.Term {
		after.Last = supervisor.TermRecord{Term: t.Term, Node: t.Node, Pulse: t.Pulse}
	}
	if err := dir.Save(after); err != nil {
		c.log.Warn("run directory not written, so the next supervisor demotes once more", "cause", err)
	}
	return note.Tenure, nil
}

// hold takes the run directory. A supervisor that holds it though it is too
// late for it is killed, where this is behind one; another clean-up is waited
// for. It returns nil when there is nothing to do any more.
func (c *cleaner) hold(ctx context.Context) (*rundir.Dir, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		dir, err := rundir.Open(string(c.sight))
		if !errors.Is(err, rundir.ErrHeld) {
			return dir, err
		}
		switch pid := c.sight.Holder(); {
		case cleans(pid):
		case !c.behind:
			c.log.Info("left as it is", "cause", "its supervisor lives, and sees to it")
			return nil, nil //nolint:nilnil // there is nothing to do
		default:
			note, damaged := c.sight.Note()
			if v, _ := c.judge(note, damaged, c.ttl(), c.clock.Now(), false); v != demote {
				return nil, nil //nolint:nilnil // it has seen to it by itself
			}
			c.end(pid)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// cleans reports whether a process cleans up behind a supervisor.
func cleans(pid int) bool {
	c := command(pid)
	return c == "cleanup" || c == "gate"
}

// afterCleanup takes a run directory as rundir.Open does. A clean-up that holds it
// is waited for: it ends soon, and then there is nothing left to see to.
func afterCleanup(path string) (*rundir.Dir, error) {
	for deadline := time.Now().Add(afterTime); ; time.Sleep(5 * time.Millisecond) {
		dir, err := rundir.Open(path)
		if !errors.Is(err, rundir.ErrHeld) || !cleans(rundir.Sight(path).Holder()) || time.Now().After(deadline) {
			return dir, err
		}
	}
}

// afterTime is shorter than TimeoutStartSec= of deputy@.service.
const afterTime = 1500 * time.Millisecond

// command is by which of deputy's commands a process may hold a run directory;
// empty where it is none of them.
func command(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return commandOf(string(line))
}

// commandOf is command for a command line as the kernel tells it. Services come
// after the command, and one may be called like it.
func commandOf(line string) string {
	for _, word := range strings.Split(line, "\x00")[1:] {
		if slices.Contains([]string{"run", "cleanup", "gate"}, word) {
			return word
		}
	}
	return ""
}

// end kills the supervisor, which may be stopped or hang. Its plugins end with
// it, and what does not is ended before they are opened anew.
func (c *cleaner) end(pid int) {
	p, err := os.FindProcess(pid) // holds on to this very process
	if err != nil {
		return
	}
	defer p.Release() //nolint:errcheck // there is nothing else to do with it
	if c.sight.Holder() != pid || command(pid) != "run" {
		return // it has become another one
	}
	if err := p.Kill(); err == nil {
		c.log.Error("supervisor killed: it has not demoted in time", "pid", pid)
	} else if !errors.Is(err, os.ErrProcessDone) {
		c.log.Error("supervisor not killed, though it has not demoted in time", "pid", pid, "cause", err)
	}
}

// demote demotes by force everything that the definition last in force has, and
// returns nil once that is proven. Else on_demote_failure is obeyed.
func (c *cleaner) demote(ctx context.Context, dir *rundir.Dir, term sdk.Term) error {
	was, err := dir.Definition()
	if err != nil {
		now, defined := c.a.definition(c.service)
		if !defined {
			return fmt.Errorf("nothing tells how to demote: %w", err)
		}
		was = withTargets(now)
	}
	// Without this node's settings there is no etcd, but still something to demote.
	node, err := c.a.settings()
	if err != nil {
		c.log.Error("this node's settings not read", "cause", err)
	}
	e := &engine{a: c.a, node: node, here: supervisor.Node{Name: node.Name, Boot: c.boot}, plain: c.log, log: c.log, clock: c.clock}
	for try := 1; ctx.Err() == nil && try <= cleanupTrys; try++ {
		past := &seat{name: c.service, ttl: was.TTL, e: e, log: c.log, dir: dir, service: was}
		if past.takeDownOnce(term) {
			if err := dir.ForgetDefinition(); err != nil {
				c.log.Warn("definition of before not forgotten", "cause", err)
			}
			return nil
		}
		select { // what is in the way may pass
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	err = errors.New("not proven demoted: see above; the next supervisor tries again: put it right, then start it")
	if was.OnDemoteFailure == supervisor.Reboot {
		err = errors.Join(err, c.reboot())
	}
	return err
}

// reboot forces this node down.
func (c *cleaner) reboot() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), endingTime, fmt.Errorf("not within %s", endingTime))
	defer cancel()
	c.log.Error("this node is forced down: on_demote_failure is reboot")
	if err := c.a.bus.Queue(ctx, systemd.Escalate(c.service)); err != nil {
		return fmt.Errorf("force this node down: %w", err)
	}
	return nil
}

// giveBack gives up the lease, so that nobody waits for it to run out.
func (c *cleaner) giveBack(ctx context.Context, t supervisor.Tenure) {
	ctx, cancel := context.WithTimeoutCause(ctx, givingTime, fmt.Errorf("not within %s", givingTime))
	defer cancel()
	err := func() error {
		node, err := c.a.settings()
		if err != nil {
			return err
		}
		cfg, err := records(node)
		if err != nil {
			return err
		}
		cfg.Clock, cfg.Node = c.clock, supervisor.Node{Name: node.Name, Boot: c.boot}
		client, err := etcd.Open(cfg)
		if err != nil {
			return err
		}
		return errors.Join(client.GiveBack(ctx, t), client.Close())
	}()
	if err != nil {
		c.log.Warn("lease not given back: it runs out by itself", "term", uint64(t.Term), "cause", err)
		return
	}
	c.log.Info("lease given back", "term", uint64(t.Term))
}
