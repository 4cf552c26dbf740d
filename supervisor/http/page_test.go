package http

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A stage is a Node whose services say what a test has them say.
type stage struct {
	mu       sync.Mutex
	names    []string
	reports  map[string]supervisor.Report
	past     map[string][]supervisor.Change
	errs     map[string]error
	silent   map[string]bool // says nothing until the question is given up
	asked    atomic.Int32    // reports
	askedOld atomic.Int32    // histories
}

func (s *stage) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.names...)
}

func (s *stage) Report(ctx context.Context, service string) (supervisor.Report, error) {
	s.asked.Add(1)
	s.mu.Lock()
	silent, err, r := s.silent[service], s.errs[service], s.reports[service]
	s.mu.Unlock()
	if silent {
		<-ctx.Done()
		return supervisor.Report{}, ctx.Err()
	}
	return r, err
}

func (s *stage) History(_ context.Context, service string) ([]supervisor.Change, error) {
	s.askedOld.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past[service], nil
}

func (s *stage) Status(context.Context, string) (supervisor.Status, sdk.Instant, error) {
	return supervisor.Status{}, 0, errors.New("the page asks for no status")
}

func (s *stage) Figures(context.Context, string) (supervisor.Figures, error) {
	return supervisor.Figures{}, errors.New("the page asks for no figures")
}

func (s *stage) AllFigures(context.Context, string) ([]supervisor.Figures, error) {
	return nil, errors.New("the page asks for no figures")
}

// healthy is a service of three nodes that is well, seen from n2.
func healthy(name string, now time.Time) (supervisor.Report, []supervisor.Change) {
	s := supervisor.State{
		Service: name,
		Primary: &supervisor.Primary{Node: "n1", Address: "192.0.2.1", Term: 7, State: sdk.RolePrimary, Since: now.Add(-65 * time.Minute)},
		Term:    supervisor.TermRecord{Term: 7, Node: "n1"},
	}
	for i, role := range []sdk.Role{sdk.RolePrimary, sdk.RoleCandidate, sdk.RoleCandidate} {
		c := supervisor.Candidate{
			Node: supervisor.Node{Name: fmt.Sprintf("n%d", i+1), Address: fmt.Sprintf("192.0.2.%d", i+1), Version: "1.2.0"}, Priority: 100, Role: role, Fit: true,
			Since: now.Add(-65 * time.Minute), Verdict: "fit; waits for the lease", Hash: "5e1f",
		}
		if role == sdk.RolePrimary {
			c.Term, c.Verdict = 7, "is primary"
		}
		s.Candidates = append(s.Candidates, c)
	}
	local := supervisor.Status{
		Service: name, Node: "n2", Role: sdk.RoleCandidate, Term: 7, Since: now.Add(-65 * time.Minute), Fit: true,
		Verdict: "fit; waits for the lease", TTL: 3 * time.Second, State: s,
		Parts: []supervisor.PartStatus{{Name: "mysql", Use: "mysql", Checked: true, Fit: true}, {Name: "vip", Use: "vip", Fit: true}},
	}
	r := supervisor.NewReport(s, &local)
	r.Description = "Orders database: one writable MySQL behind one address"
	return r, []supervisor.Change{
		{
			Term: 6, Node: "n3", From: "n1", At: now.Add(-26 * time.Hour), Reason: sdk.ReasonSwitchover, Cause: "switchover to n3, asked by alice",
			Steps: []supervisor.Step{{Plugin: "mysql", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 41 * time.Millisecond}},
			Ended: now.Add(-65*time.Minute - 2*time.Second), EndReason: sdk.ReasonLost, EndCause: "its pulse was silent for 3s",
		},
		{
			Term: 7, Node: "n1", From: "n3", At: now.Add(-65 * time.Minute), Reason: sdk.ReasonFailover, Cause: "n3 was lost: its pulse was silent for 3s",
			Steps: []supervisor.Step{
				{Plugin: "mysql", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 48 * time.Millisecond},
				{Plugin: "vip", Action: sdk.Promote, Outcome: sdk.OutcomeDone, Dur: 3 * time.Millisecond},
			},
		},
	}
}

// play returns a stage of services that are well.
func play(names ...string) *stage {
	s := &stage{
		names: names, reports: map[string]supervisor.Report{}, past: map[string][]supervisor.Change{},
		errs: map[string]error{}, silent: map[string]bool{},
	}
	for _, name := range names {
		s.reports[name], s.past[name] = healthy(name, time.Now())
	}
	return s
}

// change has a service say something else from now on.
func (s *stage) change(service string, how func(*supervisor.Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reports[service]
	how(&r)
	s.reports[service] = r
}

// fetch returns what a path answers with, as a browser gets it.
func fetch(t *testing.T, h http.Handler, path string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	return w, w.Body.String()
}

// words returns the text of a page.
func words(page string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")), " ")
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the page has no %q:\n%s", w, text)
		}
	}
}

func TestPageShowsEachServiceNodeByNode(t *testing.T) {
	_, page := fetch(t, page(play("web", "orders-db")), "/")
	text := words(page)
	contains(
		t, text, "All is well", "2 services on 3 nodes, as n2 sees them", "n1 is primary term 7 since 1h05m",
		"n1 primary fit 7 1h05m – is primary", "n2 candidate fit – 1h05m – fit; waits for the lease",
		"mysql not promoted, fit", "n3 → to n1 term 7 failover n3 was lost: its pulse was silent for 3s",
		"mysql 48ms , vip 3ms , together 51ms", "ended after 1d0h, lost: its pulse was silent for 3s",
		"n1 orders-db , web 0 – 192.0.2.1 1.2.0",
	)
	if strings.Contains(page, `id="urgent"`) {
		t.Error("something needs somebody though all is well")
	}
	if strings.Index(page, `id="service-orders-db"`) > strings.Index(page, `id="service-web"`) {
		t.Error("the services are not by name")
	}
}

// What is wrong comes first, with what to type.
func TestPageTellsWhatNeedsSomebody(t *testing.T) {
	s := play("a-paused", "b-well", "c-lost")
	s.change("a-paused", func(r *supervisor.Report) {
		r.Pause = &supervisor.Pause{Since: time.Now(), By: "bob", Reason: "upgrade"}
	})
	s.change("c-lost", func(r *supervisor.Report) { r.Vacant = true })
	_, page := fetch(t, page(s), "/")
	text := words(page)
	contains(
		t, text, "! 1 of 3 services needs somebody 3 services on 3 nodes", "What needs somebody ! c-lost", "no primary: n1 was lost, its lease ran out type deputy explain c-lost",
		"paused until resumed by bob (upgrade)", "type deputy resume a-paused",
	)
	lost, paused := strings.Index(page, `id="urgent-c-lost"`), strings.Index(page, `id="urgent-a-paused"`)
	if lost < 0 || paused < lost {
		t.Errorf("what is wrong is at %d, what is odd at %d", lost, paused)
	}
	if strings.Contains(page, `id="urgent-b-well"`) {
		t.Error("a service that is well needs somebody")
	}
}

func TestPageTellsWhatToType(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name string
		how  func(*supervisor.Report)
		want string // a command among the advice
		text string
	}{
		{"etcd is away", func(r *supervisor.Report) { r.Unreachable = "since 9s: connection refused" }, "deputy check --deep", "etcd cannot be reached"},
		{"blocked here", func(r *supervisor.Report) {
			r.Nodes[1].Role, r.Local.Role, r.Local.Cause = sdk.RoleBlocked, sdk.RoleBlocked, "vip did not demote"
		}, "deputy clear db", "n2 is blocked: vip did not demote"},
		{"blocked elsewhere", func(r *supervisor.Report) {
			r.Nodes[0].Role, r.Nodes[0].Verdict = sdk.RoleBlocked, "vip did not demote"
		}, "deputy clear db", "n1 is blocked: vip did not demote"},
		{"paused", func(r *supervisor.Report) { r.Pause = &supervisor.Pause{Until: now.Add(time.Hour)} }, "deputy resume db", "paused until"},
		{"handed over", func(r *supervisor.Report) {
			r.Reservation = &supervisor.Reservation{To: "n2", Reason: sdk.ReasonSwitchover, State: supervisor.Asked}
		}, "", "switchover to n2, asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, past := healthy("db", now)
			c.how(&r)
			card := newCard("db", answered{report: r, at: now, past: past}, nil, now)
			var commands, matters []string
			for _, a := range card.Advice {
				commands = append(commands, a.Command)
			}
			for _, m := range card.Matters {
				matters = append(matters, m.Text)
			}
			if strings.Join(commands, "; ") != c.want {
				t.Errorf("got %q, want %q", commands, c.want)
			}
			if got := strings.Join(matters, "; "); strings.Count(got, c.text) != 1 {
				t.Errorf("got %q, want %q once", got, c.text)
			}
		})
	}
}

// Whatever a node, a hook or a person has put into the records is text, in the
// page and in what a person copies from it.
func TestPageTakesNothingForMarkup(t *testing.T) {
	const bad = `"><script>alert(1)</script><img src=x onerror=alert(1)>'` + "\u202e{{.}}`x`"
	now := time.Now()
	s := play("db")
	s.change("db", func(r *supervisor.Report) {
		r.Description, r.Unreachable, r.Frozen = bad, bad, bad
		r.Primary.Node, r.Vacant = bad, false
		r.Pause = &supervisor.Pause{By: bad, Reason: bad}
		r.Reservation = &supervisor.Reservation{To: bad, Reason: bad, By: bad, Why: bad, State: bad}
		r.Nodes = append(r.Nodes, supervisor.NodeReport{Node: bad, Address: bad, Present: true, Role: bad, Verdict: bad, Version: bad, Drained: true})
		r.Local.Parts = []supervisor.PartStatus{{Name: bad, Detail: bad, Checked: true}}
		r.Local.Doing = bad
	})
	s.past["db"] = []supervisor.Change{{
		Term: 1, Node: bad, From: bad, At: now, Reason: bad, Cause: bad, Ended: now, EndReason: bad, EndCause: bad,
		Steps: []supervisor.Step{{Plugin: bad, Victim: bad, Outcome: bad, Detail: bad}},
	}}
	s.names = append(s.names, bad)
	s.errs[bad] = errors.New(bad)
	_, page := fetch(t, page(s), "/")
	for _, found := range regexp.MustCompile(`<(script|img)[^>]*>`).FindAllString(page, -1) {
		if !regexp.MustCompile(`^<(script|img) src="page/(page|icon)-[\w-]{12}\.(js|svg)"( defer| alt="" width="22" height="22")>$`).MatchString(found) {
			t.Errorf("this became an element: %s", found)
		}
	}
	if n := strings.Count(page, "alert(1)"); n < 40 {
		t.Errorf("the text is shown in %d places: the others do not show what they are told", n)
	}
	if strings.Contains(page, "deputy undrain") || strings.Contains(page, "systemctl") {
		t.Error("a command to copy holds what somebody has put into a name")
	}
	if strings.Contains(page, "onerror=alert(1)>'\"") || regexp.MustCompile(`="[^"]*"><script>`).MatchString(page) {
		t.Error("an attribute ended early")
	}
}

func TestPageIsStrictAndSmall(t *testing.T) {
	res, text := fetch(t, page(play("db")), "/")
	policy := res.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || regexp.MustCompile(` style="| on[a-z]+="|<style|<script>|https?://`).MatchString(text) {
		t.Errorf("something is inline, or from elsewhere: %s", policy)
	}
	if got := res.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("the page is kept: %q", got)
	}
	for _, want := range []string{"<main ", "<header>", "<footer>", "<noscript><meta http-equiv=\"refresh\"", `lang="en"`, `role="status"`} {
		contains(t, text, want)
	}

	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("service-%03d", i)
	}
	for _, c := range []struct {
		names []string
		limit int // bytes over the wire
	}{{names[:3], 15_000}, {names, 40_000}} {
		h := page(play(c.names...))
		_, text := fetch(t, h, "/")
		sum := 0
		for _, path := range append(assets(text), "/") {
			sum += onWire(t, h, path)
		}
		t.Logf("%d services: %d bytes over the wire, the page itself has %d", len(c.names), sum, len(text))
		if sum > c.limit {
			t.Errorf("the first view of %d services takes %d bytes, want at most %d", len(c.names), sum, c.limit)
		}
	}
}

// assets are what a page loads.
func assets(page string) (paths []string) {
	for _, m := range regexp.MustCompile(`(?:src|href)="(page/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		paths = append(paths, "/"+m[1])
	}
	return paths
}

// onWire is how many bytes an answer has, compressed.
func onWire(t *testing.T, h http.Handler, path string) int {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	h.ServeHTTP(w, r)
	n := w.Body.Len()
	z, err := gzip.NewReader(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d, %v", path, w.Code, err)
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return n
}

func TestPageServesWhatItLoadsForGood(t *testing.T) {
	h := New(play("db"), slog.New(slog.DiscardHandler))
	_, text := fetch(t, h, "/")
	paths := assets(text)
	if len(paths) != 4 { // the icon twice
		t.Fatalf("the page loads %q", paths)
	}
	for _, path := range paths {
		res, _ := fetch(t, h, path)
		if res.Code != http.StatusOK || !strings.Contains(res.Header().Get("Cache-Control"), "immutable") || res.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, res.Code, res.Header())
		}
	}
	for _, path := range []string{"/page/", "/page/page.html", "/page/../page.go", "/page/page-other.js", "/index.html"} {
		if res, _ := fetch(t, h, path); res.Code == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST answers %d", w.Code)
	}
}

// A service that is silent holds the page up for its patience, and is shown as
// it was, and as that.
func TestPageDoesNotWaitForASilentService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play("db", "mute", "never")
		s.silent["never"] = true
		h := page(s)
		fetch(t, h, "/")
		s.mu.Lock()
		s.silent["mute"] = true
		s.mu.Unlock()
		time.Sleep(12 * time.Second)
		began := time.Now()
		_, page := fetch(t, h, "/")
		if took := time.Since(began); took != patience {
			t.Errorf("the page took %s, want %s", took, patience)
		}
		text := words(page)
		contains(
			t, text, "2 of 3 services need somebody", "the supervisor here does not answer: ask mute: no answer within 1s; this is what it said 13s ago",
			"the supervisor here does not answer: ask never: no answer within 1s is its supervisor running systemctl status deputy@never",
			"db n1 is primary term 7", "mute n1 is primary term 7", "never nothing is known",
		)
	})
}

// However many look, a service is asked for them all, and its past, which lies
// in etcd, only when there is something new in it.
func TestPageAsksSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play("db")
		h := page(s)
		ask := func(reports, pasts int32) {
			t.Helper()
			s.asked.Store(0)
			s.askedOld.Store(0)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { fetch(t, h, "/") })
			}
			wg.Wait()
			if r, p := s.asked.Load(), s.askedOld.Load(); r != reports || p != pasts {
				t.Errorf("20 looked: the service was asked %d times, its past %d times; want %d and %d", r, p, reports, pasts)
			}
			time.Sleep(time.Second)
		}
		ask(1, 1)
		ask(1, 0)
		s.change("db", func(r *supervisor.Report) { r.Vacant = true })
		ask(1, 1)
		ask(1, 1) // the successor is not in it yet
		s.change("db", func(r *supervisor.Report) {
			r.Vacant, r.Primary = false, &supervisor.Primary{Node: "n2", Term: 8, State: sdk.RolePrimary}
		})
		ask(1, 1)
		s.mu.Lock()
		s.past["db"] = append(s.past["db"], supervisor.Change{Term: 8, Node: "n2"})
		s.mu.Unlock()
		ask(1, 1)
		ask(1, 0)
		time.Sleep(pastFresh)
		ask(1, 1)
		s.change("db", func(r *supervisor.Report) { r.Unreachable = "since 1s" })
		time.Sleep(pastFresh)
		ask(1, 0)
	})
}

func TestPieces(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []piece
	}{
		{"", nil},
		{"plain", []piece{{"plain", false}}},
		{"type `deputy clear db` now", []piece{{"type ", false}, {"deputy clear db", true}, {" now", false}}},
		{"an odd ` stays", []piece{{"an odd ", false}, {"` stays", false}}},
	} {
		if got := pieces(c.in); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: got %v, want %v", c.in, got, c.want)
		}
	}
}
