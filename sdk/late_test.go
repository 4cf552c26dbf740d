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
	promote := &Transition{Action: Promote, Term: 1}
	ctx, a := s.ask(ctx, promote)
	r := s.act(ctx, a, promote, &report{}, func(any, context.Context, *Transition) error {
		t.Error("promoted")
		return nil
	})
	if r.Outcome != OutcomeUnchanged || r.Detail != "promote: not begun: a demotion is asked for" {
		t.Errorf("got %+v, want unchanged with the cause", r)
	}
}

// A demote that comes after the first sign of life of a promote ends that, also
// where it has not begun yet.
func TestAPromoteThatWasAskedForFirstDoesNotComeSecond(t *testing.T) {
	s := &server{current: &part{}}
	promote, demote := &Transition{ID: "p", Action: Promote, Term: 1}, &Transition{ID: "d", Action: Demote, Term: 1}
	first, p := s.ask(t.Context(), promote)
	second, d := s.ask(t.Context(), demote)
	if r := s.act(second, d, demote, &report{}, func(any, context.Context, *Transition) error { return nil }); r.Outcome != OutcomeDone {
		t.Errorf("demote: got %+v", r)
	}
	r := s.act(first, p, promote, &report{}, func(any, context.Context, *Transition) error {
		t.Error("promoted after the demotion")
		return nil
	})
	if r.Outcome != OutcomeUnchanged {
		t.Errorf("promote: got %+v, want unchanged", r)
	}
}
