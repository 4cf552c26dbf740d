package http

import (
	"context"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A Node is what this package asks: the services of this node, by way of their
// control sockets. Each call asks anew; an error is one service's and names it.
// It is [supervisor.ErrNoService] where this node knows of no such service.
type Node interface {
	// Services returns the names of the services that have a supervisor here.
	Services() []string
	// Status returns what the service's own supervisor says now, and when that
	// was asked: the answer is as old as that, however long it took.
	Status(ctx context.Context, service string) (s supervisor.Status, asked sdk.Instant, err error)
	// Report returns the same as a report, with what the definition says.
	Report(ctx context.Context, service string) (supervisor.Report, error)
	// History returns the service's changes of role, oldest first.
	History(ctx context.Context, service string) ([]supervisor.Change, error)
	// Figures returns what the service's supervisor has counted and timed.
	Figures(ctx context.Context, service string) (supervisor.Figures, error)
	// AllFigures returns the same of all services that share its process.
	AllFigures(ctx context.Context, service string) ([]supervisor.Figures, error)
}
