package http

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/supervisor"
)

const (
	atOnce     = 32              // services that are asked at the same time
	reportTime = 2 * time.Second // for one of them
	listTime   = 5 * time.Second // for all
)

// reports answers programs with what is known of services.
type reports struct {
	node Node
	log  *slog.Logger
}

func (r *reports) one(w http.ResponseWriter, req *http.Request) {
	report, err := ask(req.Context(), req.PathValue("service"), r.node.Report)
	if err != nil {
		writeJSON(w, statusOf(err), failure{err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, report)
}

func (r *reports) all(w http.ResponseWriter, req *http.Request) {
	names := r.node.Services()
	all := make([]supervisor.Report, len(names))
	each(req.Context(), names, r.node.Report, func(i int, report supervisor.Report, err error) {
		if err != nil {
			r.log.Debug("no answer of a supervisor", "service", names[i], "cause", err)
			report = supervisor.Report{Service: names[i], Source: "none", Problem: err.Error()}
		}
		all[i] = report
	})
	writeJSON(w, http.StatusOK, all)
}

// each puts a question to services, many at the same time, and returns when told
// has been called for each of them, in any order and at the same time. One that
// is silent holds up none of the others, and all together take no longer than
// listTime and reportTime.
func each[T any](ctx context.Context, names []string, question func(context.Context, string) (T, error), told func(i int, v T, err error)) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, fmt.Errorf("not all services have answered within %s", listTime))
	defer cancel()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, name := range names {
		g.Go(func() error {
			v, err := ask(ctx, name, question)
			told(i, v, err)
			return nil
		})
	}
	_ = g.Wait() // what went wrong has been told
}

// ask puts a question to one service.
func ask[T any](ctx context.Context, service string, question func(context.Context, string) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reportTime, fmt.Errorf("%s: its supervisor accepts questions and does not answer", service))
	defer cancel()
	v, err := question(ctx, service)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("ask %s: %w", service, context.Cause(ctx))
	}
	return v, err
}
