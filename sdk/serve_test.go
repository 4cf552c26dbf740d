package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A part is a plugin whose methods a test has written. Acts without one do
// nothing.
type part struct {
	settings settings
	living   context.Context // as New's function got it

	promote, demote, follow func(context.Context, *sdk.Transition) error
	check                   func(context.Context, sdk.Role) (sdk.Health, error)
	renew                   func(context.Context, sdk.Instant) error
	watch                   func(context.Context, func()) error
	closed                  func() error
}

type settings struct {
	Name  string `toml:"name" doc:"its name" required:"true"`
	Count int    `toml:"count" doc:"how many" min:"1" default:"1"`
}

func does(f func(context.Context, *sdk.Transition) error, ctx context.Context, t *sdk.Transition) error {
	if f == nil {
		return nil
	}
	return f(ctx, t)
}

func (p *part) Promote(ctx context.Context, t *sdk.Transition) error { return does(p.promote, ctx, t) }

func (p *part) Demote(ctx context.Context, t *sdk.Transition) error { return does(p.demote, ctx, t) }

func (p *part) Follow(ctx context.Context, t *sdk.Transition) error { return does(p.follow, ctx, t) }

func (p *part) Fence(ctx context.Context, victim sdk.Peer, _ *sdk.Transition) error {
	return sdk.Refuse(errors.New("no power over " + victim.Node))
}

func (p *part) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	return p.check(ctx, role)
}

func (p *part) Renew(ctx context.Context, until sdk.Instant) error { return p.renew(ctx, until) }

func (p *part) Watch(ctx context.Context, changed func()) error { return p.watch(ctx, changed) }

func (p *part) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	orders := map[string]sdk.Order{}
	for node, position := range others {
		switch {
		case len(mine) > len(position):
			orders[node] = sdk.Ahead
		case len(mine) < len(position):
			orders[node] = sdk.Behind
		case mine == position:
			orders[node] = sdk.Equal
		}
	}
	return orders, nil
}

func (p *part) Close() error {
	if p.closed == nil {
		return nil
	}
	return p.closed()
}

// A hosted is a plugin that is served over a connection.
type hosted struct {
	*wire.Client
	t       *testing.T
	conn    *grpc.ClientConn
	log     *bytes.Buffer // once nothing is called any more
	made    []*part
	service atomic.Int64
}

// host serves a plugin that is what its author would return, and configures
// it.
func host(t *testing.T, author part) *hosted {
	t.Helper()
	h := &hosted{t: t, log: &bytes.Buffer{}}
	h.connect(sdk.New("test", func(ctx context.Context, c settings, _ sdk.Host) (*part, error) {
		if c.Name == "wrong" {
			return nil, &sdk.KeyError{Key: "name", Err: errors.New("is wrong")}
		}
		p := author
		p.settings, p.living = c, ctx
		h.made = append(h.made, &p)
		return &p, nil
	}))
	if err := h.configure("a"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hosted) connect(p sdk.Plugin) {
	listener := bufconn.Listen(1 << 16)
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	proto.RegisterPluginServiceServer(s, sdk.NewServer(context.Background(), p, slog.New(slog.NewJSONHandler(h.log, nil)), sdk.Now))
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(listener); err != nil {
			h.t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	h.conn, h.Client = conn, wire.New(conn)
	h.t.Cleanup(func() {
		conn.Close()
		s.Stop()
		serving.Wait()
	})
}

func (h *hosted) configure(name string) error {
	return h.Configure(h.t.Context(), wire.Setup{Service: "s", Node: "n", Part: "p", Config: map[string]any{"name": name}})
}

// do has an act of the next transition done.
func (h *hosted) do(a sdk.Action, term sdk.Term) sdk.Result {
	return h.again(fmt.Sprint("act ", h.service.Add(1)), a, term)
}

func (h *hosted) again(id string, a sdk.Action, term sdk.Term) sdk.Result {
	r, err := h.Do(h.t.Context(), sdk.Transition{ID: id, Action: a, Term: term, Attempt: 1, Timeout: time.Minute}, time.Second, func(string) {})
	if err != nil {
		h.t.Errorf("%s: %v", a, err)
	}
	return r
}

func (h *hosted) want(what string, got sdk.Result, outcome sdk.Outcome, detail string) {
	h.t.Helper()
	if got.Outcome != outcome || !strings.Contains(got.Detail, detail) {
		h.t.Errorf("%s: got %s %q, want %s with %q", what, got.Outcome, got.Detail, outcome, detail)
	}
}

func TestErrorsAreOutcomes(t *testing.T) {
	odd := errors.New("odd")
	for _, test := range []struct {
		returned error
		want     sdk.Result
	}{
		{nil, sdk.Result{Outcome: sdk.OutcomeDone, Detail: "noted"}},
		{sdk.ErrAlready, sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "noted"}},
		{fmt.Errorf("has it: %w", sdk.ErrAlready), sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "has it: already so"}},
		{odd, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "odd"}},
		{status.Error(codes.Unimplemented, "of a backend"), sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "rpc error: code = Unimplemented desc = of a backend"}},
		{sdk.Unchanged(odd), sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "odd"}},
		{sdk.Unchanged(nil), sdk.Result{Outcome: sdk.OutcomeDone, Detail: "noted"}},
		{sdk.Retry(odd, time.Second), sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "odd", RetryAfter: time.Second}},
		{fmt.Errorf("add: %w", sdk.Refuse(odd)), sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "add: odd", Refused: true}},
		{fmt.Errorf("update: %w", sdk.Stale(odd)), sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "update: odd"}},
		{sdk.Stale(nil), sdk.Result{Outcome: sdk.OutcomeDone, Detail: "noted"}},
		// What is not so of one is not so of all.
		{errors.Join(sdk.ErrAlready, sdk.ErrAlready), sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "already so\nalready so"}},
		{errors.Join(sdk.ErrAlready, odd), sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "already so\nodd"}},
		{errors.Join(sdk.Unchanged(odd), odd), sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "odd\nodd"}},
		{errors.Join(sdk.ErrAlready, sdk.Retry(odd, 2), sdk.Retry(odd, 1)), sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "already so\nodd\nodd", RetryAfter: 2}},
		{errors.Join(sdk.Refuse(odd), sdk.Stale(odd), sdk.Unchanged(odd), sdk.ErrAlready), sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "odd\nodd\nodd\nalready so"}},
		{errors.Join(sdk.Stale(odd), odd), sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "odd\nodd"}},
		{sdk.Unchanged(fmt.Errorf("odd: %w", sdk.ErrAlready)), sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "odd: already so"}},
		{fmt.Errorf("%w: %w", sdk.ErrAlready, context.Canceled), sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "already so: context canceled"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := host(t, part{promote: func(ctx context.Context, _ *sdk.Transition) error {
				sdk.Note(ctx, "not%s", "ed")
				return test.returned
			}})
			if got := h.do(sdk.Promote, 1); got != test.want {
				t.Errorf("%v: got %+v, want %+v", test.returned, got, test.want)
			}
		})
	}
}

func TestActArrivesWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *sdk.Transition
		h := host(t, part{promote: func(ctx context.Context, tr *sdk.Transition) error {
			got = tr
			deadline, ok := ctx.Deadline()
			if left := time.Until(deadline); !ok || left != 7*time.Second {
				return fmt.Errorf("%s are left", left)
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		want := sdk.Transition{
			ID: "id", Action: sdk.Promote, Mode: sdk.Forced, Service: "s", Node: "n", Term: 5, Reason: sdk.ReasonLost, Cause: "why",
			Attempt: 2, Timeout: 7 * time.Second, LeaseUntil: 8, Previous: sdk.Peer{Node: "p"}, Primary: sdk.Peer{Node: "q", Address: "a"},
			Members: []sdk.Peer{{Node: "x"}, {Node: "y", Address: "b"}}, StateDir: "/d",
		}
		r, err := h.Do(t.Context(), want, time.Second, func(string) {})
		if err != nil || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v (%v), want %+v", *got, err, want)
		}
		h.want("past its deadline", r, sdk.OutcomeUnknown, "not done within 7s")

		r, err = h.Do(t.Context(), sdk.Transition{Action: sdk.Fence, Term: 5, Primary: sdk.Peer{Node: "q"}}, 0, func(string) {})
		if h.want("fence", r, sdk.OutcomeUnchanged, "no power over q"); err != nil || !r.Refused {
			t.Errorf("fence: %+v, %v", r, err)
		}
		for victim, want := range map[string]string{"n": "fence n: that is this node", "": "fence: it is not said whom"} {
			r, err = h.Do(t.Context(), sdk.Transition{Action: sdk.Fence, Node: "n", Term: 5, Primary: sdk.Peer{Node: victim}}, 0, func(string) {})
			if h.want("fence of nobody else", r, sdk.OutcomeUnchanged, want); err != nil || !r.Refused {
				t.Errorf("fence of %q: %+v, %v", victim, r, err)
			}
		}
	})
}

func TestOneActAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, runs atomic.Int32
		act := func(ctx context.Context, _ *sdk.Transition) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			runs.Add(1)
			time.Sleep(time.Second) // deaf to its context
			return context.Cause(ctx)
		}
		h := host(t, part{promote: act, demote: act, follow: act})
		var acts sync.WaitGroup
		start := func(a sdk.Action, outcome sdk.Outcome, detail string) {
			acts.Go(func() { h.want(string(a), h.do(a, 1), outcome, detail) })
			synctest.Wait()
		}
		start(sdk.Promote, sdk.OutcomeDone, "")
		start(sdk.Follow, sdk.OutcomeDone, "")
		acts.Wait()
		start(sdk.Promote, sdk.OutcomeUnknown, sdk.ErrSuperseded.Error())
		start(sdk.Promote, sdk.OutcomeUnknown, "not begun") // it was asked before the demotion
		start(sdk.Demote, sdk.OutcomeDone, "")
		start(sdk.Follow, sdk.OutcomeDone, "")
		acts.Wait()
		if most.Load() != 1 || runs.Load() != 5 {
			t.Errorf("of %d acts %d ran at once", runs.Load(), most.Load())
		}
	})
}

// A demotion ends what runs, and begins when that has ended.
func TestDemoteSupersedes(t *testing.T) {
	for _, mode := range []sdk.Mode{sdk.Planned, sdk.Forced} {
		synctest.Test(t, func(t *testing.T) {
			var order []string
			h := host(t, part{
				promote: func(ctx context.Context, _ *sdk.Transition) error {
					<-ctx.Done()
					time.Sleep(time.Minute) // it takes its time
					order = append(order, "promote: "+context.Cause(ctx).Error())
					return context.Cause(ctx)
				},
				demote: func(context.Context, *sdk.Transition) error {
					order = append(order, "demote")
					return nil
				},
			})
			var promoting sync.WaitGroup
			promoting.Go(func() { h.want("promote", h.do(sdk.Promote, 1), sdk.OutcomeUnknown, sdk.ErrSuperseded.Error()) })
			synctest.Wait()
			began := time.Now()
			r, err := h.Do(t.Context(), sdk.Transition{ID: "d", Action: sdk.Demote, Mode: mode, Timeout: time.Hour}, time.Second, func(string) {})
			if h.want("demote", r, sdk.OutcomeDone, ""); err != nil || time.Since(began) != time.Minute {
				t.Errorf("demote: after %s: %v", time.Since(began), err)
			}
			promoting.Wait()
			if got := strings.Join(order, ", "); got != "promote: a demotion was asked for, demote" {
				t.Errorf("in this order: %s", got)
			}
		})
	}
}

// A demotion that cannot begin says that the part may be primary.
func TestDemoteThatCannotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := host(t, part{promote: func(context.Context, *sdk.Transition) error { <-release; return nil }})
		var promoting sync.WaitGroup
		promoting.Go(func() { h.do(sdk.Promote, 1) })
		synctest.Wait()
		for _, a := range []sdk.Action{sdk.Demote, sdk.Promote} {
			r, err := h.Do(t.Context(), sdk.Transition{ID: string(a), Action: a, Term: 1, Timeout: time.Second}, time.Second, func(string) {})
			if err != nil {
				t.Error(err)
			}
			h.want(string(a), r, sdk.OutcomeUnknown, "not begun: another promote still runs: not done within 1s")
		}
		close(release)
		promoting.Wait()
		h.want("demote", h.do(sdk.Demote, 1), sdk.OutcomeDone, "")
	})
}

func TestSameActTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		act := func(ctx context.Context, _ *sdk.Transition) error {
			time.Sleep(time.Second)
			return errors.Join(context.Cause(ctx), sdk.Unchanged(fmt.Errorf("run %d", runs.Add(1))))
		}
		h := host(t, part{promote: act, demote: act})
		for i, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
			var twice sync.WaitGroup
			for range 2 {
				twice.Go(func() { h.want("at once", h.again("id", a, 1), sdk.OutcomeUnchanged, fmt.Sprint("run ", 2*i+1)) })
			}
			twice.Wait()
			h.want("later", h.again("id", a, 1), sdk.OutcomeUnchanged, fmt.Sprint("run ", 2*i+2))
		}
	})
}

func TestStaleTermsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		act := func(_ context.Context, tr *sdk.Transition) error {
			ran = append(ran, fmt.Sprint(tr.Action, tr.Term))
			time.Sleep(time.Second)
			return nil
		}
		h := host(t, part{promote: act, demote: act, follow: act, check: func(context.Context, sdk.Role) (sdk.Health, error) { return sdk.Health{}, nil }})
		h.want("promote 5", h.do(sdk.Promote, 5), sdk.OutcomeDone, "")
		for _, a := range []sdk.Action{sdk.Promote, sdk.Follow, sdk.Fence} {
			h.want(string(a), h.do(a, 4), sdk.OutcomeStaleTerm, "term 4: term 5 was seen")
		}
		h.want("demote of an old term", h.do(sdk.Demote, 4), sdk.OutcomeDone, "")
		if got := strings.Join(ran, " "); got != "promote5 demote4" {
			t.Errorf("the author's code ran for %s", got)
		}
		// A term is also seen in a demotion, a check and with the settings.
		h.do(sdk.Demote, 6)
		h.want("after a demote", h.do(sdk.Promote, 5), sdk.OutcomeStaleTerm, "term 6 was seen")
		if _, err := h.Check(t.Context(), sdk.RoleStandby, 7); err != nil {
			t.Fatal(err)
		}
		h.want("after a check", h.do(sdk.Promote, 6), sdk.OutcomeStaleTerm, "term 7 was seen")
		setup := wire.Setup{Service: "s", Node: "n", Part: "p", Config: map[string]any{"name": "a"}, Term: 8}
		if err := h.Configure(t.Context(), setup); err != nil {
			t.Fatal(err)
		}
		h.want("after the settings", h.do(sdk.Promote, 7), sdk.OutcomeStaleTerm, "term 8 was seen")
		setup.Term = 9
		if err := h.Validate(t.Context(), setup); err != nil {
			t.Fatal(err)
		}
		h.want("judged settings have no effect", h.do(sdk.Promote, 8), sdk.OutcomeDone, "")
		// One that grows old while it waits is refused, too.
		var acts sync.WaitGroup
		acts.Go(func() { h.do(sdk.Promote, 8) })
		synctest.Wait()
		acts.Go(func() { h.want("grown old", h.do(sdk.Follow, 8), sdk.OutcomeStaleTerm, "term 10 was seen") })
		synctest.Wait()
		if _, err := h.Check(t.Context(), sdk.RoleStandby, 10); err != nil {
			t.Fatal(err)
		}
		acts.Wait()
	})
}

func TestSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host(t, part{promote: func(ctx context.Context, _ *sdk.Transition) error {
			sdk.Progress(ctx, 30, "wrote %d", 5)
			time.Sleep(1050 * time.Millisecond)
			sdk.Progress(ctx, -1, "nearly")
			sdk.Note(ctx, "seen")
			return nil
		}})
		beats, told := 0, []string{}
		r, err := h.Do(t.Context(), sdk.Transition{Action: sdk.Promote, Timeout: time.Minute}, 100*time.Millisecond, func(p string) {
			if p == "" {
				beats++
			} else {
				told = append(told, p)
			}
		})
		h.want("promote", r, sdk.OutcomeDone, "seen")
		if got := strings.Join(told, ", "); err != nil || beats != 10 || got != "30% wrote 5, nearly" {
			t.Errorf("%d heartbeats, told %q: %v", beats, got, err)
		}
		sdk.Progress(t.Context(), 1, "outside of an act") // does nothing
		sdk.Note(t.Context(), "outside of an act")
	})
}

// An act that computes is not taken for one that is frozen.
func TestHeartbeatsWhileComputing(t *testing.T) {
	var beats atomic.Int32
	h := host(t, part{promote: func(ctx context.Context, _ *sdk.Transition) error {
		for n := 0; beats.Load() < 3; n++ {
			if n%1_000_000 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	}})
	r, err := h.Do(t.Context(), sdk.Transition{Action: sdk.Promote, Timeout: time.Minute}, 10*time.Millisecond, func(string) { beats.Add(1) })
	if h.want("promote", r, sdk.OutcomeDone, ""); err != nil {
		t.Error(err)
	}
}

func TestPanicsAreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *part
		h := host(t, part{
			promote: func(context.Context, *sdk.Transition) error { panic("out of luck") },
			check:   func(context.Context, sdk.Role) (sdk.Health, error) { return sdk.Health{Fit: p.settings.Count > 0}, nil },
			renew:   func(context.Context, sdk.Instant) error { panic(errors.New("no luck")) },
		})
		h.want("promote", h.do(sdk.Promote, 1), sdk.OutcomeUnknown, "panic in promote: out of luck")
		if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); err == nil || !strings.Contains(err.Error(), "panic in check: runtime error") {
			t.Errorf("check: %v", err)
		}
		if err := h.Renew(t.Context(), 5); err == nil || err.Error() != "panic in renew: no luck" {
			t.Errorf("renew: %v", err)
		}
		h.want("what follows", h.do(sdk.Demote, 1), sdk.OutcomeDone, "")
		if log := h.log.String(); strings.Count(log, `"msg":"plugin panics"`) != 3 || !strings.Contains(log, "serve_test.go") {
			t.Errorf("the log is %s", log)
		}
	})
}

func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed int
		h := host(t, part{
			promote: func(context.Context, *sdk.Transition) error { time.Sleep(time.Minute); return nil },
			check: func(context.Context, sdk.Role) (sdk.Health, error) {
				time.Sleep(2 * time.Minute)
				return sdk.Health{Fit: true, Detail: fmt.Sprint(closed)}, nil
			},
			closed: func() error { closed++; return nil },
		})
		now := func(want, wantClosed int) {
			t.Helper()
			synctest.Wait()
			if len(h.made) != want || closed != wantClosed {
				t.Errorf("%d were made and %d closed, want %d and %d", len(h.made), closed, want, wantClosed)
			}
		}
		if err := h.configure("a"); err != nil {
			t.Error(err)
		}
		now(1, 0) // the same settings change nothing

		// Mistakes are told by key, whoever finds them, and leave the old in force.
		for _, test := range []struct {
			config map[string]any
			want   string
		}{
			{map[string]any{"name": "wrong"}, "name: is wrong"},
			{map[string]any{"nam": "b", "count": 0}, "name: is missing, and it is required: its name\ncount: is 0, must be at least 1\nnam: unknown key; did you mean \"name\"?"},
		} {
			err := h.Configure(t.Context(), wire.Setup{Service: "s", Node: "n", Part: "p", Config: test.config})
			if key := (*sdk.KeyError)(nil); !errors.As(err, &key) || err.Error() != test.want {
				t.Errorf("mistakes are %v, want %s", err, test.want)
			}
		}
		if err := h.Validate(t.Context(), wire.Setup{Config: map[string]any{"name": ""}}); err == nil {
			t.Error("judges an empty name as right")
		}
		if err := h.Validate(t.Context(), wire.Setup{Config: map[string]any{"name": "b"}}); err != nil {
			t.Error(err)
		}
		now(1, 0)

		// Others are put in force when no act runs, and the old ends when nobody
		// is in it.
		var calls sync.WaitGroup
		calls.Go(func() { h.want("promote", h.do(sdk.Promote, 1), sdk.OutcomeDone, "") })
		calls.Go(func() {
			if health, err := h.Check(t.Context(), sdk.RolePrimary, 1); err != nil || health.Detail != "0" {
				t.Errorf("check in the old: %+v, %v", health, err)
			}
		})
		synctest.Wait()
		began := time.Now()
		if err := h.configure("b"); err != nil || time.Since(began) != 2*time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		calls.Wait()
		now(2, 1)
		if h.made[0].living.Err() == nil || h.made[1].living.Err() != nil || h.made[1].settings.Name != "b" {
			t.Errorf("the old one's context is %v, the new one's %v, of %q", h.made[0].living.Err(), h.made[1].living.Err(), h.made[1].settings.Name)
		}

		// An act that does not end keeps the old in force.
		calls.Go(func() { h.do(sdk.Promote, 1) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Configure(ctx, wire.Setup{Config: map[string]any{"name": "c"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beside an act: %v", err)
		}
		calls.Wait()
		now(3, 2)
		if h.made[1].living.Err() != nil || h.made[2].living.Err() == nil {
			t.Error("the wrong one is in force")
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed int
		h := host(t, part{
			promote: func(ctx context.Context, _ *sdk.Transition) error {
				<-ctx.Done()
				time.Sleep(time.Minute)
				return context.Cause(ctx)
			},
			closed: func() error { closed++; return errors.New("stuck") },
		})
		var promoting sync.WaitGroup
		promoting.Go(func() { h.want("promote", h.do(sdk.Promote, 1), sdk.OutcomeUnknown, sdk.ErrDrained.Error()) })
		synctest.Wait()
		if err := h.Drain(t.Context(), time.Second); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "an act still runs") {
			t.Errorf("drain within a second: %v", err)
		}
		if err := h.Drain(t.Context(), time.Hour); err != nil {
			t.Errorf("drain: %v", err)
		}
		promoting.Wait()
		if closed != 1 || h.made[0].living.Err() == nil || !strings.Contains(h.log.String(), "stuck") {
			t.Errorf("closed %d times; its context is %v; log: %s", closed, h.made[0].living.Err(), h.log)
		}
		h.want("demote", h.do(sdk.Demote, 1), sdk.OutcomeUnchanged, "told to end")
		if err := h.configure("b"); err == nil || !strings.Contains(err.Error(), "told to end") {
			t.Errorf("configured once drained: %v", err)
		}
	})
}

func TestNotConfiguredYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosted{t: t, log: &bytes.Buffer{}}
		h.connect(sdk.New("test", func(context.Context, settings, sdk.Host) (*part, error) { return &part{}, nil },
			sdk.Version("1.2"), sdk.Doc("Tests.\n"), sdk.ForcedBound(time.Second)))
		h.want("promote", h.do(sdk.Promote, 1), sdk.OutcomeUnchanged, "not configured yet")
		if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); err == nil || err.Error() != "not configured yet" {
			t.Errorf("check: %v", err)
		}
		d, err := h.Describe(t.Context())
		if err != nil || d.Name != "test" || d.Version != "1.2" || d.Doc != "Tests.\n" || d.ForcedBound != time.Second || !d.Heartbeats ||
			fmt.Sprint(d.Capabilities) != "[promote demote renew check watch rank follow fence]" || !bytes.Contains(d.Schema, []byte(`"its name"`)) {
			t.Errorf("described as %+v: %v", d, err)
		}
	})
}

func TestChecksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		all := make(chan struct{})
		h := host(t, part{
			promote: func(context.Context, *sdk.Transition) error { <-all; return nil },
			check: func(_ context.Context, role sdk.Role) (sdk.Health, error) {
				if running.Add(1) == 10 {
					close(all)
				}
				<-all
				return sdk.Health{Fit: true, Detail: string(role), Position: "7"}, nil
			},
			renew: func(_ context.Context, until sdk.Instant) error {
				if until != 42 {
					return fmt.Errorf("until %d", until)
				}
				return nil
			},
		})
		var calls sync.WaitGroup
		calls.Go(func() { h.do(sdk.Promote, 1) })
		for range 9 {
			calls.Go(func() {
				if health, err := h.Check(t.Context(), sdk.RolePrimary, 1); err != nil || health != (sdk.Health{Fit: true, Detail: "primary", Position: "7"}) {
					t.Errorf("check: %+v, %v", health, err)
				}
			})
		}
		synctest.Wait()
		if running.Load() != 9 {
			t.Errorf("%d checks run during a promote", running.Load())
		}
		if err := h.Renew(t.Context(), 42); err != nil {
			t.Errorf("renew during a promote: %v", err)
		}
		if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); err != nil {
			t.Error(err)
		}
		calls.Wait()
		orders, err := h.Rank(t.Context(), "22", map[string]string{"a": "1", "b": "22", "c": "333", "d": "21"})
		if err != nil || fmt.Sprint(orders) != "map[a:ahead b:equal c:behind]" {
			t.Errorf("ranked as %v: %v", orders, err)
		}
	})
}

// only can do nothing but check.
type only struct{}

func (only) Check(context.Context, sdk.Role) (sdk.Health, error) {
	return sdk.Health{}, status.Error(codes.Unimplemented, "of a backend")
}

func TestWhatAPluginLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosted{t: t, log: &bytes.Buffer{}}
		h.connect(sdk.New("lame", func(context.Context, struct{}, sdk.Host) (only, error) { return only{}, nil }))
		if err := h.Configure(t.Context(), wire.Setup{}); err != nil {
			t.Fatal(err)
		}
		_, err := h.Do(t.Context(), sdk.Transition{Action: sdk.Promote}, 0, func(string) {})
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "lame cannot promote") {
			t.Errorf("promote: %v", err)
		}
		if err := h.Renew(t.Context(), 1); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("renew: %v", err)
		}
		if _, err := h.Rank(t.Context(), "", nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("rank: %v", err)
		}
		// What a backend does not support is another matter.
		if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); err == nil || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("check: %v", err)
		}
	})
}

// Who asked is gone: the act is told so, and nothing begins before it has
// ended.
func TestLostStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		h := host(t, part{
			promote: func(ctx context.Context, _ *sdk.Transition) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				order = append(order, "promote: "+context.Cause(ctx).Error())
				return nil
			},
			follow: func(context.Context, *sdk.Transition) error {
				order = append(order, "follow")
				return nil
			},
		})
		ctx, hangUp := context.WithCancelCause(t.Context())
		var promoting sync.WaitGroup
		promoting.Go(func() {
			if _, err := h.Do(ctx, sdk.Transition{Action: sdk.Promote, Timeout: time.Hour}, time.Second, func(string) {}); !errors.Is(err, context.Canceled) {
				t.Errorf("promote: %v", err)
			}
		})
		synctest.Wait()
		hangUp(nil)
		promoting.Wait()
		h.want("follow", h.do(sdk.Follow, 1), sdk.OutcomeDone, "")
		if got := strings.Join(order, ", "); got != "promote: context canceled, follow" {
			t.Errorf("in this order: %s", got)
		}
	})
}

// That what Renew extends has expired is told apart from all that may be wrong.
func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			returned error
			expired  bool
		}{
			{fmt.Errorf("guard of 192.0.2.10: %w", sdk.ErrExpired), true},
			{errors.New("no answer"), false},
			{status.Error(codes.FailedPrecondition, "of a backend"), false},
		} {
			h := host(t, part{
				renew: func(context.Context, sdk.Instant) error { return test.returned },
				check: func(context.Context, sdk.Role) (sdk.Health, error) { return sdk.Health{}, test.returned },
			})
			if err := h.Renew(t.Context(), 1); err == nil || errors.Is(err, sdk.ErrExpired) != test.expired {
				t.Errorf("%v: renew returns %v", test.returned, err)
			}
			if _, err := h.Check(t.Context(), sdk.RolePrimary, 1); err == nil || errors.Is(err, sdk.ErrExpired) {
				t.Errorf("%v: check returns %v", test.returned, err)
			}
		}
		h := &hosted{t: t, log: &bytes.Buffer{}}
		h.connect(sdk.New("test", func(context.Context, settings, sdk.Host) (*part, error) { return &part{}, nil }))
		if err := h.Renew(t.Context(), 1); err == nil || errors.Is(err, sdk.ErrExpired) {
			t.Errorf("not configured: renew returns %v", err)
		}
	})
}

func TestWhatNewRefuses(t *testing.T) {
	refuses := func(what string, f func()) {
		defer func() {
			if r := fmt.Sprint(recover()); !strings.Contains(r, what) {
				t.Errorf("panics with %q, want %q", r, what)
			}
		}()
		f()
	}
	refuses("has none of the methods", func() {
		sdk.New("x", func(context.Context, struct{}, sdk.Host) (int, error) { return 0, nil })
	})
	refuses("can promote but not demote", func() {
		sdk.New("x", func(context.Context, struct{}, sdk.Host) (interface{ sdk.Promoter }, error) { return nil, nil })
	})
}

func TestWatchTellsOfChanges(t *testing.T) {
	changes, ended := make(chan struct{}), make(chan error, 2)
	h := host(t, part{watch: func(ctx context.Context, changed func()) error {
		for {
			select {
			case <-changes:
				changed()
			case <-ctx.Done():
				ended <- context.Cause(ctx)
				return context.Cause(ctx)
			}
		}
	}})
	watch := func(ctx context.Context) (told chan struct{}, over chan error) {
		told, over = make(chan struct{}, 10), make(chan error, 1)
		go func() { over <- h.Watch(ctx, func() { told <- struct{}{} }) }()
		return told, over
	}
	told, over := watch(t.Context())
	for range 3 {
		changes <- struct{}{}
		<-told
	}

	// Other settings end it, and do not wait for it.
	if err := h.configure("b"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("the author's watch ends because of %v", err)
	}
	if err := <-over; err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("the host's watch ends with %v", err)
	}

	// And so does who watches.
	ctx, end := context.WithCancelCause(t.Context())
	told, over = watch(ctx)
	changes <- struct{}{}
	<-told
	end(errors.New("seen enough"))
	<-ended
	<-over
}

func TestCheckMayBeCertain(t *testing.T) {
	h := host(t, part{check: func(context.Context, sdk.Role) (sdk.Health, error) {
		return sdk.Health{Detail: "a.service has failed", Certain: true}, nil
	}})
	got, err := h.Check(t.Context(), sdk.RolePrimary, 1)
	if err != nil || !got.Certain || got.Fit {
		t.Errorf("check: got %+v, %v; want certain", got, err)
	}
}
