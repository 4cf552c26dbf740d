package notify

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// ErrRefused is a receiver that will not take the same message later either.
var ErrRefused = errors.New("refused")

// A Receiver is where messages go.
type Receiver struct {
	Name    string // the same on all nodes, which deliver to it only once together
	Timeout time.Duration
	Wants   func(service string, kind supervisor.EventKind) bool
	// Send delivers a message. It ends soon after ctx; with ErrRefused it is not
	// tried again.
	Send func(ctx context.Context, m Message) error
}

// A Message is an event as it is sent.
type Message struct {
	supervisor.Event
	Sender string `json:"sender"` // the node that sends it
	// Folded is how many events of the same kind this one stands for besides
	// itself: there were too many to tell each.
	Folded int `json:"folded,omitempty"`
}

// A Watched is a member, whose status is seen.
type Watched interface {
	Watch(ctx context.Context) iter.Seq[supervisor.Status]
}

// A Service is one service whose events are told.
type Service struct {
	Name      string
	Node      string // this node
	Member    Watched
	Ledger    supervisor.Ledger
	Receivers []Receiver
	Lanes     Lanes // shared by all services of a process
	Log       *slog.Logger
}

// Lanes bound how many calls of the ledger run at once: what many services have
// to tell in the same moment leaves etcd to those who renew and take over.
type Lanes chan struct{}

// NewLanes returns those of a process.
func NewLanes() Lanes { return make(Lanes, 4) }

// ledgerTime bounds a call of the ledger, once it has a lane.
const ledgerTime = 3 * time.Second

// ask calls the ledger.
func (s Service) ask(ctx context.Context, call func(context.Context) error) error {
	select {
	case s.Lanes <- struct{}{}:
		defer func() { <-s.Lanes }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ledgerTime, errors.New("no answer"))
	defer cancel()
	return call(ctx)
}

// errEnded is why what Run started ends.
var errEnded = errors.New("the supervisor ends")

// Run tells of the service's events until ctx ends.
func (s Service) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, end := context.WithCancelCause(ctx)
	defer end(errEnded)

	statuses := make(chan supervisor.Status, 1)
	running.Go(func() {
		for st := range s.Member.Watch(ctx) {
			select {
			case <-statuses: // replaced by the newer one
			default:
			}
			statuses <- st
		}
	})
	var couriers []*courier
	for _, r := range s.Receivers {
		c := newCourier(s, r)
		couriers = append(couriers, c)
		running.Go(func() { c.run(ctx) })
	}

	look := supervisor.NewLookout(s.Name, s.Node)
	began := time.Now()
	now := func() sdk.Instant { return sdk.Instant(time.Since(began)) + 1 }
	var st supervisor.Status
	for seen := false; ; {
		var sight supervisor.Sight
		if seen {
			sight = look.Look(now(), time.Now(), st, nil)
			s.hand(couriers, sight)
		}
		if sight.News {
			news, err := s.news(ctx)
			switch {
			case err == nil:
				sight = look.Look(now(), time.Now(), st, &news)
				s.hand(couriers, sight)
			case ctx.Err() == nil:
				s.Log.Debug("history not read", "cause", err)
			}
		}
		var due <-chan time.Time
		switch {
		case sight.News: // they did not come
			due = time.After(ledgerTime)
		case sight.Next != 0:
			due = time.After(sight.Next.Sub(now()))
		}
		select {
		case st = <-statuses:
			seen = true
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

func (s Service) news(ctx context.Context) (news supervisor.News, err error) {
	err = s.ask(ctx, func(ctx context.Context) error {
		news, err = s.Ledger.News(ctx, s.Name)
		return err
	})
	return news, err
}

func (s Service) hand(couriers []*courier, sight supervisor.Sight) {
	for _, e := range sight.Events {
		for _, c := range couriers {
			if c.to.Wants(s.Name, e.Kind) {
				c.add(e)
			}
		}
	}
}
