package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

func at(i sdk.Instant) func() sdk.Instant { return func() sdk.Instant { return i } }

// get asks a handler, and returns the status and the body.
func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	if got := w.Header().Get("Cache-Control"); got != "no-store" && w.Code != http.StatusMethodNotAllowed {
		t.Errorf("%s %s: Cache-Control is %q, want no-store", method, path, got)
	}
	return w.Code, w.Body.String()
}

func TestHealthOfEachRole(t *testing.T) {
	drained := member(sdk.RoleStandby, true)
	drained.State.Drained = []supervisor.Drain{{Node: "db1"}}
	elsewhere := member(sdk.RoleStandby, true)
	elsewhere.State.Drained = []supervisor.Drain{{Node: "db2"}}
	for _, c := range []struct {
		name string
		s    supervisor.Status
		yes  string // which questions
	}{
		{"unknown", member(sdk.RoleUnknown, true), ""},
		{"standby", member(sdk.RoleStandby, true), "standby healthy"},
		{"unfit standby", member(sdk.RoleStandby, false), ""},
		{"drained standby", drained, "healthy"},
		{"standby where another is drained", elsewhere, "standby healthy"},
		{"candidate", member(sdk.RoleCandidate, true), "standby healthy"},
		{"promoting", member(sdk.RolePromoting, true), ""},
		{"primary", member(sdk.RolePrimary, true), "primary healthy"},
		{"unfit primary", member(sdk.RolePrimary, false), "primary"},
		{"demoting", member(sdk.RoleDemoting, true), ""},
		{"blocked", member(sdk.RoleBlocked, true), ""},
		{"failed", member(sdk.RoleFailed, true), ""},
	} {
		h := routes(always(c.s), slog.New(slog.DiscardHandler), at(start))
		for _, q := range questions() {
			want := http.StatusServiceUnavailable
			if strings.Contains(c.yes, q.path) {
				want = http.StatusOK
			}
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				got, body := get(t, h, method, "/services/orders/"+q.path)
				if got != want {
					t.Errorf("%s, %s %s: %d, want %d", c.name, method, q.path, got, want)
				}
				if method == "OPTIONS" && body != "" {
					t.Errorf("OPTIONS has the body %q, want none", body)
				}
			}
		}
	}
}

func TestBodyOfHealth(t *testing.T) {
	_, body := get(t, routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start+5e8-1)), "GET", "/services/orders/primary")
	if want := `{"service":"orders","node":"db1","role":"primary","term":7,"fit":true,"lease_left_ns":1500000001,"why":"is primary"}` + "\n"; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
	_, body = get(t, routes(always(member(sdk.RoleStandby, false)), slog.New(slog.DiscardHandler), at(start)), "GET", "/services/orders/standby")
	if want := `{"service":"orders","node":"db1","role":"standby","term":7,"fit":false,"why":"not fit: mysql: no answer"}` + "\n"; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

// Whatever the supervisor has said, nothing outlives the lease, nor Age.
func TestHealthEnds(t *testing.T) {
	primary, standby := member(sdk.RolePrimary, true), member(sdk.RoleStandby, true)
	short, lost := primary, primary
	short.LeaseUntil, lost.LeaseUntil = start+1e8, 0
	for _, c := range []struct {
		name string
		s    supervisor.Status
		path string
		now  sdk.Instant
		want int
		why  string
	}{
		{"in time", short, "primary", start + 1e8 - 1, 200, "is primary"},
		{"at the lease's end", short, "primary", start + 1e8, 503, "the lease ran out"},
		{"at the lease's end", short, "healthy", start + 1e8, 503, "the lease ran out"},
		{"lease proved not ours", lost, "primary", start, 503, "the lease ran out"},
		{"young enough", primary, "primary", start.Add(Age) - 1, 200, "is primary"},
		{"too old", primary, "primary", start.Add(Age), 503, "asked more than 500ms ago"},
		{"young enough", standby, "standby", start.Add(Age) - 1, 200, "is standby"},
		{"too old", standby, "standby", start.Add(Age), 503, "asked more than 500ms ago"},
	} {
		got, body := get(t, routes(always(c.s), slog.New(slog.DiscardHandler), at(c.now)), "GET", "/services/orders/"+c.path)
		var a Answer
		if err := json.Unmarshal([]byte(body), &a); err != nil || got != c.want || a.Why != c.why {
			t.Errorf("%s, %s: %d %q, %v; want %d %q", c.name, c.path, got, a.Why, err, c.want, c.why)
		}
	}
}

func TestRefusals(t *testing.T) {
	silent := &fakeNode{names: []string{"orders"}, status: func(context.Context, string) (supervisor.Status, sdk.Instant, error) {
		return supervisor.Status{}, 0, errors.New("orders: no daemon answers")
	}}
	h := routes(silent, slog.New(slog.DiscardHandler), at(start))
	for _, c := range []struct {
		method, path string
		want         int
		body         string
	}{
		{"GET", "/services/ordres/primary", 404, `no such service`},
		{"GET", "/services/ordres", 404, `no such service`},
		{"GET", "/services/orders/primary", 503, `orders: no daemon answers`},
		{"GET", "/services/orders", 503, `orders: no daemon answers`},
		{"GET", "/healthz", 200, `{"alive":true}`},
		{"POST", "/services/orders/primary", 405, ""},
		{"DELETE", "/services/orders", 405, ""},
		{"PUT", "/services", 405, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.want || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %s, want %d and %q", c.method, c.path, w.Code, w.Body, c.want, c.body)
		}
		if c.want == 405 {
			if got := w.Header().Get("Allow"); !strings.HasPrefix(got, "GET, HEAD") {
				t.Errorf("%s %s: Allow is %q", c.method, c.path, got)
			}
		} else if !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: no JSON: %s", c.method, c.path, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/services", strings.NewReader("x")))
	if w.Code != http.StatusRequestEntityTooLarge || w.Header().Get("Connection") != "close" {
		t.Errorf("a body: %d, Connection is %q", w.Code, w.Header().Get("Connection"))
	}
}

// frozenOnes answers at once but for services whose name begins with "frozen",
// which never do.
func frozenOnes(ctx context.Context, service string) (supervisor.Status, sdk.Instant, error) {
	if strings.HasPrefix(service, "frozen") {
		<-ctx.Done()
		return supervisor.Status{}, 0, ctx.Err()
	}
	s := member(sdk.RolePrimary, true)
	s.Service = service
	return s, start, nil
}

// A frozen supervisor is a no within a bounded time, costs one question however
// many ask, and holds up nobody else.
func TestFrozenSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{names: []string{"frozen", "orders"}, status: frozenOnes}
		h := routes(n, slog.New(slog.DiscardHandler), at(start))
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				got, body := get(t, h, "GET", "/services/frozen/primary")
				if got != http.StatusServiceUnavailable || !strings.Contains(body, "does not answer") || time.Since(began) != Age {
					t.Errorf("after %s: %d %s", time.Since(began), got, body)
				}
			})
		}
		synctest.Wait()
		if got, _ := get(t, h, "GET", "/services/orders/primary"); got != http.StatusOK || time.Since(began) != 0 {
			t.Errorf("the other service after %s: %d", time.Since(began), got)
		}
		wg.Wait()
		if got := n.questionsAsked(); got != 2 {
			t.Errorf("%d questions to supervisors, want one each", got)
		}
	})
}

// Who shares a question does not lose it when the one hangs up that asked first.
func TestSharedQuestionOutlivesItsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{names: []string{"orders"}, status: func(ctx context.Context, _ string) (supervisor.Status, sdk.Instant, error) {
			select {
			case <-time.After(Age / 2):
				return member(sdk.RolePrimary, true), start, nil
			case <-ctx.Done():
				return supervisor.Status{}, 0, ctx.Err()
			}
		}}
		h := routes(n, slog.New(slog.DiscardHandler), at(start))
		gone, hangUp := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/services/orders/primary", nil))
		})
		synctest.Wait()
		wg.Go(func() {
			if got, body := get(t, h, "GET", "/services/orders/primary"); got != http.StatusOK {
				t.Errorf("%d %s", got, body)
			}
		})
		synctest.Wait()
		hangUp(errors.New("gone"))
		wg.Wait()
	})
}

// Who asks after the role has gone is not told what somebody was who asked
// before.
func TestNobodyIsToldWhatWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		began := time.Now()
		now := func() sdk.Instant { return start.Add(time.Since(began)) }
		n := &fakeNode{names: []string{"orders"}, status: func(context.Context, string) (supervisor.Status, sdk.Instant, error) {
			s, asked := member(sdk.RolePrimary, true), now()
			if gone.Load() {
				s.Role = sdk.RoleDemoting
			}
			time.Sleep(100 * time.Millisecond) // the answer is on its way
			return s, asked, nil
		}}
		h := routes(n, slog.New(slog.DiscardHandler), now)
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, body := get(t, h, "GET", "/services/orders/primary"); got != http.StatusOK {
				t.Errorf("who asked the primary: %d %s", got, body)
			}
		})
		time.Sleep(50 * time.Millisecond)
		gone.Store(true)
		for range 10 {
			wg.Go(func() {
				if got, body := get(t, h, "GET", "/services/orders/primary"); got != http.StatusServiceUnavailable {
					t.Errorf("who asked later: %d %s", got, body)
				}
			})
		}
		wg.Wait()
		if got := n.questionsAsked(); got != 2 {
			t.Errorf("%d questions, want one for those who came later", got)
		}
	})
}

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{status: frozenOnes}
		for i := range 100 {
			n.names = append(n.names, fmt.Sprintf("orders-%d", i))
		}
		n.names[1] = "frozen"
		h := routes(n, slog.New(slog.DiscardHandler), at(start))
		began := time.Now()
		got, body := get(t, h, "GET", "/services")
		var all []supervisor.Report
		if err := json.Unmarshal([]byte(body), &all); err != nil || got != http.StatusOK || len(all) != 100 {
			t.Fatalf("%d, %d reports, %v", got, len(all), err)
		}
		if all[0].Service != "orders-0" || all[0].Source != "daemon" || all[0].Local.LeaseUntil != lease || all[99].Service != "orders-99" {
			t.Errorf("the first report is %+v", all[0])
		}
		if all[1].Service != "frozen" || all[1].Source != "none" || !strings.Contains(all[1].Problem, "does not answer") || time.Since(began) != reportTime {
			t.Errorf("after %s: %+v", time.Since(began), all[1])
		}
		_, one := get(t, h, "GET", "/services/orders-5")
		if !strings.Contains(one, `"service":"orders-5"`) || !strings.Contains(one, `"lease_until_ns":1002000000000`) {
			t.Errorf("one: %s", one)
		}

		// All of them frozen: there is an answer before balancers and servers give up.
		for i := range n.names {
			n.names[i] = fmt.Sprintf("frozen-%d", i)
		}
		began = time.Now()
		_, body = get(t, h, "GET", "/services")
		if took := time.Since(began); took > listTime+reportTime || strings.Count(body, `"source":"none"`) != 100 {
			t.Errorf("after %s: %s", took, body)
		}
	})
}

func BenchmarkHealth(b *testing.B) {
	h := routes(always(member(sdk.RolePrimary, true)), slog.New(slog.DiscardHandler), at(start))
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/services/orders/primary", nil))
	}
}
