package sdk

import (
	"context"
	"errors"
	"testing"
)

// A host that demotes cancels the promote that it has asked for before. Both
// are calls of their own, and the promote may be the later one to begin.
func TestAnActCancelledBeforeItBeganDoesNothing(t *testing.T) {
	s := &server{current: &part{}}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("a demotion is asked for"))
	r := s.act(ctx, &Transition{Action: Promote, Term: 1}, &report{}, func(any, context.Context, *Transition) error {
		t.Error("promoted")
		return nil
	})
	if r.Outcome != OutcomeUnchanged || r.Detail != "promote: not begun: a demotion is asked for" {
		t.Errorf("got %+v, want unchanged with the cause", r)
	}
}
