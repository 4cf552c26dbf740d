package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// all are figures in which there is something of everything.
func all(service string) supervisor.Figures {
	took := func(bounds []time.Duration, each ...time.Duration) (h supervisor.Histogram) {
		for _, d := range each {
			h.Add(bounds, d)
		}
		return h
	}
	return supervisor.Figures{
		Service: service, Node: "db1", Version: "1.2.3", Began: time.Unix(1000, 0),
		Role: sdk.RolePrimary, Since: time.Unix(2000, 500e6), Term: 7, TTL: 3 * time.Second, Held: true, LeaseUntil: lease,
		Fit: true, Seen: true, Members: 3, Fits: 2, Definitions: 1, Leaderless: 1500 * time.Millisecond,
		Tenures:    map[sdk.Reason]uint64{sdk.ReasonElection: 1, sdk.ReasonFailover: 2},
		Promotions: map[supervisor.Result]uint64{supervisor.ResultSuccess: 3, supervisor.ResultFailure: 0},
		Demotions:  map[supervisor.Result]uint64{supervisor.ResultSuccess: 2, supervisor.ResultFailure: 0, supervisor.ResultUndone: 1},
		HookBounds: supervisor.HookBounds(),
		Parts: []supervisor.PartFigures{
			{
				Name: "mysql", Use: "mysql", Promoted: true, Checked: true, Fit: true,
				Hooks: []supervisor.HookFigures{
					{Act: sdk.Promote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), 20*time.Millisecond, time.Minute)},
					{Act: sdk.Demote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), 70*time.Millisecond)},
				},
				Checks:   []supervisor.CheckFigures{{Result: supervisor.ResultSuccess, Count: 10, Sum: time.Second}, {Result: supervisor.ResultSilence, Count: 1, Sum: time.Second / 2}},
				Restarts: &supervisor.Restarts{Crashes: 1},
			},
			{
				Name: "vip", Use: "vip", Promoted: true,
				Hooks: []supervisor.HookFigures{
					{Act: sdk.Promote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), time.Millisecond)},
					{Act: sdk.Demote, Outcome: sdk.OutcomeDone, Took: took(supervisor.HookBounds(), time.Millisecond)},
				},
				Restarts: &supervisor.Restarts{},
			},
		},
		Renewals: &supervisor.Renewals{Bounds: supervisor.RenewalBounds(), Took: took(supervisor.RenewalBounds(), 2*time.Millisecond, 3*time.Millisecond), Failures: 4},
		Contact:  &supervisor.Contact{Reachable: true, Unreachable: 2 * time.Second, Last: time.Unix(3000, 0)},
	}
}

// counting is a node whose services have all figures.
func counting(names ...string) *fakeNode {
	return &fakeNode{names: names, figures: func(_ context.Context, service string) (supervisor.Figures, error) { return all(service), nil }}
}

// scraped is what GET /metrics of a node answers at an instant.
func scraped(t *testing.T, n Node, at sdk.Instant, accept string) (body string, header http.Header) {
	t.Helper()
	h := routes(n, slog.New(slog.DiscardHandler), func() sdk.Instant { return at })
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String(), w.Header()
}

// has complains about lines that a scrape does not have.
func has(t *testing.T, scrape string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+scrape, "\n"+line+"\n") {
			t.Errorf("the scrape has no line\n%s", line)
		}
	}
	if t.Failed() {
		t.Log(scrape)
	}
}

func TestMetricsTellWhatTheSupervisorSays(t *testing.T) {
	body, header := scraped(t, counting("orders"), start, "text/plain")
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("got %q", got)
	}
	has(t, body,
		`deputy_service_up{service="orders"} 1`,
		`deputy_service_info{service="orders",node="db1",version="1.2.3"} 1`,
		`deputy_primary{service="orders",node="db1"} 1`,
		`deputy_role{service="orders",node="db1",role="primary"} 1`,
		`deputy_role{service="orders",node="db1",role="standby"} 0`,
		`deputy_role_change_timestamp_seconds{service="orders",node="db1"} 2000.5`,
		`deputy_lease_remaining_seconds{service="orders",node="db1"} 2`,
		`deputy_without_primary_seconds_total{service="orders",node="db1"} 1.5`,
		`deputy_tenures_total{service="orders",node="db1",reason="failover"} 2`,
		`# TYPE deputy_lease_renewal_duration_seconds histogram`,
		`deputy_lease_renewal_duration_seconds_bucket{service="orders",node="db1",le="0.001"} 0`,
		`deputy_lease_renewal_duration_seconds_bucket{service="orders",node="db1",le="0.0025"} 1`,
		`deputy_lease_renewal_duration_seconds_bucket{service="orders",node="db1",le="+Inf"} 2`,
		`deputy_lease_renewal_duration_seconds_sum{service="orders",node="db1"} 0.005`,
		`deputy_hook_duration_seconds_bucket{service="orders",node="db1",plugin="mysql",act="promote",outcome="done",le="30"} 1`,
		`deputy_hook_duration_seconds_count{service="orders",node="db1",plugin="mysql",act="promote",outcome="done"} 2`,
		`deputy_check_duration_seconds_count{service="orders",node="db1",plugin="mysql",result="no-answer"} 1`,
		`deputy_plugin_fit{service="orders",node="db1",plugin="mysql"} 1`,
		`deputy_plugin_restarts_total{service="orders",node="db1",plugin="mysql",cause="crash"} 1`,
		`deputy_etcd_unreachable_seconds_total{service="orders",node="db1"} 2`,
	)
	if strings.Contains(body, `deputy_plugin_fit{service="orders",node="db1",plugin="vip"}`) {
		t.Error("tells of a check that there was not")
	}

	body, header = scraped(t, counting("orders"), start, "application/openmetrics-text; version=1.0.0")
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("asked for OpenMetrics got %q", got)
	}
	has(t, body, `# TYPE deputy_tenures counter`, `deputy_tenures_total{service="orders",node="db1",reason="failover"} 2.0`)
}

// TestMetricsAreWrittenAsTheLibraryDoes has the text read by Prometheus' own
// library, and compares with what that writes of it, in both formats.
func TestMetricsAreWrittenAsTheLibraryDoes(t *testing.T) {
	n := counting("orders", "web")
	n.figures = func(_ context.Context, service string) (supervisor.Figures, error) {
		f := all(service)
		f.Version = "1.2.3 \"quoted\" \\ \n"
		return f, nil
	}
	text, _ := scraped(t, n, start, "")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for accept, format := range map[string]expfmt.Format{
		"": expfmt.NewFormat(expfmt.TypeTextPlain), "application/openmetrics-text;version=1.0.0": expfmt.NewFormat(expfmt.TypeOpenMetrics),
	} {
		var want bytes.Buffer
		enc := expfmt.NewEncoder(&want, format)
		for _, name := range slices.Sorted(maps.Keys(families)) {
			if err := enc.Encode(families[name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := enc.(expfmt.Closer).Close(); err != nil {
			t.Fatal(err)
		}
		got, _ := scraped(t, n, start, accept)
		if diff := cmp.Diff(strings.Split(want.String(), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("accepting %q (-library +this):\n%s", accept, diff)
		}
	}
}

func TestMetricsOfALeaseThatHasRunOut(t *testing.T) {
	for at, want := range map[sdk.Instant]string{lease - 1: "1", lease: "0", lease + 1e9: "0"} {
		body, _ := scraped(t, counting("orders"), at, "")
		has(t, body, `deputy_primary{service="orders",node="db1"} `+want)
	}
	body, _ := scraped(t, counting("orders"), lease+1e9, "")
	has(t, body, `deputy_lease_remaining_seconds{service="orders",node="db1"} 0`)
}

func TestMetricsOfServicesThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := counting("silent", "broken", "orders", "frozen")
		n.figures = func(ctx context.Context, service string) (supervisor.Figures, error) {
			switch service {
			case "silent", "frozen":
				<-ctx.Done()
				return supervisor.Figures{}, context.Cause(ctx)
			case "broken":
				return supervisor.Figures{}, errors.New("no daemon answers")
			}
			return all(service), nil
		}
		began := time.Now()
		body, _ := scraped(t, n, start, "")
		if took := time.Since(began); took != scrapeTime {
			t.Errorf("the scrape took %s, want %s for all that are silent together", took, scrapeTime)
		}
		has(t, body, `deputy_service_up{service="silent"} 0`, `deputy_service_up{service="broken"} 0`, `deputy_service_up{service="orders"} 1`, `deputy_primary{service="orders",node="db1"} 1`)
		if n := strings.Count(body, `"broken"`); n != 1 {
			t.Errorf("tells %d things of a service that does not answer, want that", n)
		}
	})
}

// Services that have told that they share a process are asked all at once, and
// each for itself where that comes to nothing.
func TestMetricsOfOneProcess(t *testing.T) {
	n := counting("lone", "orders", "stock", "web")
	process := map[string]string{"lone": "1", "orders": "2", "stock": "2", "web": "2"}
	var mu sync.Mutex
	var asked []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, fmt.Sprintf(format, args...))
	}
	of := func(service string) supervisor.Figures {
		f := all(service)
		f.Process = process[service]
		return f
	}
	n.figures = func(_ context.Context, service string) (supervisor.Figures, error) {
		note("%s", service)
		return of(service), nil
	}
	together := func(services ...string) func(string) ([]supervisor.Figures, error) {
		return func(service string) (all []supervisor.Figures, err error) {
			note("all of %s", service)
			for _, s := range services {
				all = append(all, of(s))
			}
			return all, nil
		}
	}
	h := routes(n, slog.New(slog.DiscardHandler), func() sdk.Instant { return start })
	scrape := func(when string, want ...string) {
		t.Helper()
		asked = nil
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, service := range n.names {
			has(t, w.Body.String(), `deputy_service_up{service="`+service+`"} 1`, `deputy_primary{service="`+service+`",node="db1"} 1`)
		}
		if slices.Sort(asked); !slices.Equal(asked, want) {
			t.Errorf("%s: asked for %q, want %q", when, asked, want)
		}
	}
	scrape("nothing is known", "lone", "orders", "stock", "web")
	n.together = together("orders", "stock", "web", "another")
	scrape("they share a process", "all of orders", "lone")
	n.together = together("orders", "stock")
	process["web"] = "3"
	scrape("one has moved", "all of orders", "lone", "web")
	scrape("and is known to have", "all of orders", "lone", "web")
	n.together = nil
	scrape("an older supervisor", "lone", "orders", "stock", "web")
}

func TestMetricsKeepTheConventions(t *testing.T) {
	body, _ := scraped(t, counting("orders", "web"), start, "")
	cmd := exec.Command(promtool(t), "check", "metrics")
	cmd.Stdin = strings.NewReader(body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// promtool is Debian's, of the package prometheus.
func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no promtool here: apt-get install prometheus")
	}
	return path
}

const top = "../.."

// TestManualHasEveryMetric compares deputy-metrics(7) with what is served.
func TestManualHasEveryMetric(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "packaging/man/deputy-metrics.7.md"))
	if err != nil {
		t.Fatal(err)
	}
	var served []string
	for _, m := range table() {
		labels := append([]string{"service"}, m.labels...)
		if m.of != nil {
			labels = append([]string{"service", "node"}, m.labels...)
		}
		served = append(served, fmt.Sprintf("**%s** %s\n: %s\n: Labels: %s.", m.name, m.kind, m.help, strings.Join(labels, ", ")))
	}
	told := regexp.MustCompile(`(?m)^\*\*deputy_.*\n: .*\n: .*$`).FindAllString(string(text), -1)
	for _, m := range served {
		if !slices.Contains(told, m) {
			t.Errorf("deputy-metrics(7) does not tell:\n%s", m)
		}
	}
	for _, m := range told {
		if !slices.Contains(served, m) {
			t.Errorf("deputy-metrics(7) tells what is not served:\n%s", m)
		}
	}
}

// TestWatchersNameWhatIsServed holds what contrib has for Prometheus and Grafana
// against a scrape.
func TestWatchersNameWhatIsServed(t *testing.T) {
	body, _ := scraped(t, counting("orders"), start, "")
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(deputy_[a-z_]+)[{ ]`).FindAllStringSubmatch(body, -1) {
		served[m[1]] = true
	}
	families := map[string]bool{}
	for _, m := range table() {
		families[m.name] = true
		if !strings.Contains(body, "\n# TYPE "+m.name+" ") && !strings.HasPrefix(body, "# HELP "+m.name+" ") {
			t.Errorf("no scrape tells of %s", m.name)
		}
	}
	for _, file := range []string{"contrib/prometheus/deputy.rules.yaml", "contrib/prometheus/deputy.rules.test.yaml", "contrib/grafana/deputy.json"} {
		text, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Error(err)
			continue
		}
		names := regexp.MustCompile(`\bdeputy_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !served[name] {
				t.Errorf("%s names %s, which is not served", file, name)
			}
		}
	}
}

// BenchmarkMetrics is what it takes to make and write a scrape of 1000 services
// whose figures are known.
func BenchmarkMetrics(b *testing.B) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("service-%04d", i))
	}
	n, known := counting(names...), map[string]supervisor.Figures{}
	for _, name := range names {
		known[name] = all(name)
	}
	n.figures = func(_ context.Context, service string) (supervisor.Figures, error) { return known[service], nil }
	h := routes(n, slog.New(slog.DiscardHandler), sdk.Now)
	r := httptest.NewRequest("GET", "/metrics", nil)
	var size int
	b.ReportAllocs()
	for b.Loop() {
		size = 0
		h.ServeHTTP(sink{header: http.Header{}, size: &size}, r)
	}
	b.ReportMetric(float64(size), "bytes/scrape")
}

// A sink counts what is written to it.
type sink struct {
	header http.Header
	size   *int
}

func (s sink) Header() http.Header         { return s.header }
func (s sink) WriteHeader(int)             {}
func (s sink) Write(b []byte) (int, error) { *s.size += len(b); return len(b), nil }
