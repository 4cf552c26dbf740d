package http

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// Age is how old an answer of health may be when it is sent, reckoned from when
// the supervisor was asked, and so how long a silent one is waited for. A
// healthy one answers within a millisecond.
const Age = 500 * time.Millisecond

// A question is what a load balancer asks of a service on this node.
type question struct {
	path string
	no   func(supervisor.Status) string // why the answer is no; empty when it is yes
}

func questions() []question {
	return []question{{"primary", notPrimary}, {"standby", notStandby}, {"healthy", notHealthy}}
}

// notPrimary says no while parts are promoted or demoted: some of them serve,
// others do not. A blocked node is no primary to its clients, though it may be
// one by accident.
func notPrimary(s supervisor.Status) string {
	if s.Role != sdk.RolePrimary {
		return "is " + string(s.Role)
	}
	return ""
}

// notStandby says yes to who is demoted, takes part and is fit: it may lead, or
// serve those who only read. Who never leads (priority 0) may still serve them;
// who is drained is about to be worked on.
func notStandby(s supervisor.Status) string {
	switch {
	case s.Role != sdk.RoleStandby && s.Role != sdk.RoleCandidate:
		return "is " + string(s.Role)
	case !s.Fit:
		return unfit(s)
	case s.State.IsDrained(s.Node):
		return "drained"
	}
	return ""
}

// notHealthy says yes to a role that is settled and whose checks pass.
func notHealthy(s supervisor.Status) string {
	switch s.Role {
	case sdk.RolePrimary, sdk.RoleStandby, sdk.RoleCandidate:
		if !s.Fit {
			return unfit(s)
		}
		return ""
	}
	return "is " + string(s.Role)
}

// unfit tells which checks fail.
func unfit(s supervisor.Status) string {
	var said []string
	for _, p := range s.Parts {
		if !p.Fit && !p.Warning {
			said = append(said, p.Name+": "+p.Detail)
		}
	}
	if said == nil {
		return "not fit: " + s.Verdict
	}
	return "not fit: " + strings.Join(said, "; ")
}

// An Answer is the body of an answer of health.
type Answer struct {
	Service   string        `json:"service"`
	Node      string        `json:"node,omitempty"`
	Role      sdk.Role      `json:"role,omitempty"`
	Term      sdk.Term      `json:"term,omitempty"`
	Fit       bool          `json:"fit"`
	LeaseLeft time.Duration `json:"lease_left_ns,omitempty"` // of a primary, when the answer was written
	Why       string        `json:"why"`                     // the answer in words
}

// health answers load balancers.
type health struct {
	node    Node
	now     func() sdk.Instant
	log     *slog.Logger
	flights singleflight.Group
}

// answer returns the handler of one question.
func (h *health) answer(no func(supervisor.Status) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := Answer{Service: r.PathValue("service")}
		s, asked, err := h.ask(r.Context(), a.Service)
		if err != nil {
			h.log.Debug("no answer of a supervisor", "service", a.Service, "cause", err)
			a.Why = err.Error()
			h.write(w, r, statusOf(err), a)
			return
		}
		a.Node, a.Role, a.Term, a.Fit = s.Node, s.Role, s.Term, s.Fit
		if a.Why = no(s); a.Why != "" {
			h.write(w, r, http.StatusServiceUnavailable, a)
			return
		}
		until := asked.Add(Age)
		late := fmt.Sprintf("asked more than %s ago", Age)
		now := h.now()
		if s.Role == sdk.RolePrimary {
			a.LeaseLeft = max(0, s.LeaseUntil.Sub(now))
			if s.LeaseUntil < until {
				until, late = s.LeaseUntil, "the lease ran out"
			}
		}
		if now >= until {
			a.Why = late
			h.write(w, r, http.StatusServiceUnavailable, a)
			return
		}
		a.Why = "is " + string(s.Role)
		sendBefore(r.Context(), until)
		h.write(w, r, http.StatusOK, a)
	}
}

// ask asks a service's supervisor, at the earliest now: an answer to somebody who
// asked before could be of a role that has gone elsewhere since.
func (h *health) ask(ctx context.Context, service string) (s supervisor.Status, asked sdk.Instant, err error) {
	arrived := h.now()
	for range 2 { // the second question begins after the first has ended
		if s, asked, err = h.share(ctx, service); err != nil || asked >= arrived {
			break
		}
	}
	return s, asked, err
}

// share asks a service's supervisor. Those who ask at the same time share one
// question, so that a frozen supervisor is not left a heap of them for when it
// goes on.
func (h *health) share(ctx context.Context, service string) (supervisor.Status, sdk.Instant, error) {
	type told struct {
		status supervisor.Status
		asked  sdk.Instant
	}
	v, err, _ := h.flights.Do(service, func() (any, error) {
		// The others still want it when this one hangs up.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), Age,
			fmt.Errorf("%s: its supervisor accepts questions and does not answer", service))
		defer cancel()
		s, asked, err := h.node.Status(ctx, service)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return told{s, asked}, err
	})
	if err != nil {
		return supervisor.Status{}, 0, err
	}
	t := v.(told)
	return t.status, t.asked, nil
}

func (h *health) write(w http.ResponseWriter, r *http.Request, status int, a Answer) {
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		writeHead(w, status)
		return
	}
	body, err := json.Marshal(a)
	if err != nil {
		panic(err) // it is made of plain values
	}
	writeHead(w, status)
	_, _ = w.Write(append(body, '\n')) // whoever does not read the answer has gone
}
