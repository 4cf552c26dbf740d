package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/control"
	deputyhttp "github.com/deputy-ha/deputy/supervisor/http"
)

// A counted is a member that has counted something.
type counted struct {
	control.Member
	figures supervisor.Figures
}

func (c counted) Figures() supervisor.Figures { return c.figures }

// asked is a node that is asked for figures alone.
type asked struct {
	deputyhttp.Node
	names   []string
	clients map[string]*control.Client
}

func (a asked) Services() []string { return a.names }

func (a asked) Figures(ctx context.Context, service string) (supervisor.Figures, error) {
	return a.clients[service].Figures(ctx)
}

func (a asked) AllFigures(ctx context.Context, service string) ([]supervisor.Figures, error) {
	return a.clients[service].AllFigures(ctx)
}

// plausible are figures of a service of two plugins that has moved a few times.
func plausible(service string) supervisor.Figures {
	took := func(bounds []time.Duration, n int) (h supervisor.Histogram) {
		for i := range n {
			h.Add(bounds, time.Duration(i+1)*time.Millisecond)
		}
		return h
	}
	f := supervisor.Figures{
		Service: service, Node: "db1", Version: "1.2.3", Began: time.Now(), Role: sdk.RolePrimary, Since: time.Now(), Term: 7, TTL: 3 * time.Second,
		Held: true, LeaseUntil: sdk.Now().Add(time.Hour), Fit: true, Seen: true, Members: 3, Fits: 3, Definitions: 1, Leaderless: time.Second, HookBounds: supervisor.HookBounds(),
		Tenures:    map[sdk.Reason]uint64{sdk.ReasonElection: 1, sdk.ReasonFailover: 2, sdk.ReasonSwitchover: 1, sdk.ReasonPreempt: 0, sdk.ReasonDrain: 0, sdk.ReasonStart: 0},
		Promotions: map[supervisor.Result]uint64{supervisor.ResultSuccess: 4, supervisor.ResultFailure: 0},
		Demotions:  map[supervisor.Result]uint64{supervisor.ResultSuccess: 3, supervisor.ResultFailure: 0, supervisor.ResultUndone: 0},
		Renewals:   &supervisor.Renewals{Bounds: supervisor.RenewalBounds(), Took: took(supervisor.RenewalBounds(), 100), Failures: 3},
		Contact:    &supervisor.Contact{Reachable: true, Unreachable: time.Second, Last: time.Now()},
	}
	for _, name := range []string{"mysql", "vip"} {
		f.Parts = append(f.Parts, supervisor.PartFigures{
			Name: name, Use: name, Promoted: true, Checked: true, Fit: true, Restarts: &supervisor.Restarts{},
			Hooks: []supervisor.HookFigures{
				{Act: sdk.Promote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), 4)},
				{Act: sdk.Demote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), 3)},
			},
			Checks: []supervisor.CheckFigures{{Result: supervisor.ResultSuccess, Count: 100000, Sum: time.Hour}, {Result: supervisor.ResultFailure, Count: 2, Sum: time.Second}},
		})
	}
	return f
}

// serveMany serves the control sockets of many services until the test ends, and
// returns the node that asks them.
func serveMany(tb testing.TB, n int) asked {
	tb.Helper()
	dir, err := os.MkdirTemp("", "m") // paths of sockets have to be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	a := asked{clients: map[string]*control.Client{}}
	ctx, stop := context.WithCancelCause(context.Background())
	var serving sync.WaitGroup
	tb.Cleanup(func() { stop(errEnded); serving.Wait() })
	all := func(yield func(supervisor.Figures) bool) {
		for _, name := range a.names {
			if !yield(plausible(name)) {
				return
			}
		}
	}
	for i := range n {
		name := fmt.Sprintf("service-%04d", i)
		own := filepath.Join(dir, name)
		if err := os.Mkdir(own, 0o755); err != nil {
			tb.Fatal(err)
		}
		s := &control.Server{
			Socket: filepath.Join(own, control.SocketName), Member: counted{figures: plausible(name)},
			Process: control.Process{ID: "one"}, Figures: all,
			Level: new(control.Level), Log: slog.New(slog.DiscardHandler),
		}
		serving.Go(func() {
			if err := s.Serve(ctx); err != nil {
				tb.Error(err)
			}
		})
		a.names, a.clients[name] = append(a.names, name), control.NewKeepingClient(own)
		tb.Cleanup(a.clients[name].Close)
	}
	return a
}

// scrape asks once, and returns how many supervisors have answered, and how long
// the answer is.
func scrape(h http.Handler) (up, size int) {
	w := &sink{header: http.Header{}}
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.up, w.size
}

// A sink counts what is written to it.
type sink struct {
	header   http.Header
	up, size int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(int)     {}

func (s *sink) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, []byte("# HELP deputy_primary ")) {
		s.up = bytes.Count(b, []byte("\ndeputy_primary{"))
	}
	s.size += len(b)
	return len(b), nil
}

// scrapeNode waits for a line of metrics in a script; negated, it wants none now.
func scrapeNode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] scrape NODE SERVICE REGEXP")
	}
	want, err := regexp.Compile("(?m)^" + args[2] + "$")
	if neg {
		want, err = regexp.Compile(args[2])
	}
	ts.Check(err)
	node := asked{names: args[1:2], clients: map[string]*control.Client{
		args[1]: control.NewClient(ts.MkAbs(filepath.Join(args[0], "run", args[1]))),
	}}
	h := deputyhttp.New(node, slog.New(slog.DiscardHandler))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		switch found := want.MatchString(w.Body.String()); {
		case found && neg:
			ts.Fatalf("%s tells %q:\n%s", args[0], args[2], w.Body)
		case found || neg:
			return
		case time.Now().After(deadline):
			ts.Fatalf("not within 20s: %q among what %s tells:\n%s", args[2], args[0], w.Body)
		}
	}
}

// Nothing of a service's figures is lost when all of a process are asked for at
// once, and they come from the process that they say.
func TestFiguresOfAProcessAreThoseOfEach(t *testing.T) {
	a := serveMany(t, 3)
	h := deputyhttp.New(a, slog.New(slog.DiscardHandler))
	for up := 0; up < len(a.names); up, _ = scrape(h) { // until all serve
	}
	var each []supervisor.Figures
	for _, name := range a.names {
		f, err := a.Figures(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if f.Process != "one" {
			t.Errorf("%s is counted by process %q", name, f.Process)
		}
		f.Began, f.Since, f.LeaseUntil, f.Contact.Last = time.Time{}, time.Time{}, 0, time.Time{}
		each = append(each, f)
	}
	all, err := a.AllFigures(t.Context(), a.names[1])
	for i := range all {
		all[i].Began, all[i].Since, all[i].LeaseUntil, all[i].Contact.Last = time.Time{}, time.Time{}, 0, time.Time{}
	}
	if diff := cmp.Diff(each, all); err != nil || diff != "" {
		t.Errorf("all of a process (-each +all): %v\n%s", err, diff)
	}
}

// A process tells of all services that it runs.
func TestFiguresOfAllSeats(t *testing.T) {
	clock, err := boottime.New()
	if err != nil {
		t.Fatal(err)
	}
	defer clock.Close()
	e := &engine{}
	for _, name := range []string{"orders", "web"} {
		m, err := supervisor.NewMember(supervisor.Setup{
			Service: supervisor.Service{Name: name, TTL: time.Second}, Clock: clock, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		e.seats = append(e.seats, &seat{name: name, member: m})
	}
	var told []string
	for f := range e.figures {
		told = append(told, f.Service)
	}
	if want := []string{"orders", "web"}; !slices.Equal(told, want) {
		t.Errorf("tells of %q, want %q", told, want)
	}
}

// BenchmarkScrape is a scrape of 1000 services, whose supervisors all answer by
// their control sockets. The CPU is that of both sides.
func BenchmarkScrape(b *testing.B) {
	a := serveMany(b, 1000)
	h := deputyhttp.New(a, slog.New(slog.DiscardHandler))
	for up := 0; up < len(a.names); up, _ = scrape(h) { // until all serve
	}
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before, size := cpu(), 0
	for b.Loop() {
		up := 0
		if up, size = scrape(h); up != len(a.names) {
			b.Fatalf("%d of %d answer", up, len(a.names))
		}
	}
	b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(size), "bytes/scrape")
}
