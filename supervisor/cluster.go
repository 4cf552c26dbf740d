package supervisor

import (
	"context"
	"iter"
)

// A Cluster is what an operator sees of all services and can ask for. It is
// implemented on the records themselves and, for those who may not reach them,
// on a node's control socket.
type Cluster interface {
	Services(ctx context.Context) ([]string, error)
	State(ctx context.Context, service string) (State, error) // ErrNoService
	Watch(ctx context.Context, service string) iter.Seq[State]
	History(ctx context.Context, service string) ([]Change, error)    // oldest first
	Request(ctx context.Context, service string, r Reservation) error // ErrBusy
	Cancel(ctx context.Context, service, id string) error             // deletes the reservation, if it is still this one
	Pause(ctx context.Context, service string, p Pause) error
	Resume(ctx context.Context, service string) error
	Drain(ctx context.Context, d Drain) error
	Undrain(ctx context.Context, node string) error
	Ban(ctx context.Context, service string, b Ban) error
	Unban(ctx context.Context, service, node string) error
	Remove(ctx context.Context, service string) error // ErrBusy while somebody is primary or candidate
}
