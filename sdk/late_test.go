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

// A demote that was cancelled may be the later one to begin, too: the one that
// was asked for after it is not ended by it.
func TestADemoteCancelledBeforeItBeganEndsNoOther(t *testing.T) {
	s := &server{current: &part{}}
	demote := &Transition{ID: "2", Action: Demote, Term: 1}
	second, a := s.ask(t.Context(), demote)
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("asked anew"))
	late := &Transition{ID: "1", Action: Demote, Term: 1}
	first, b := s.ask(cancelled, late)
	if r := s.act(second, a, demote, &report{}, func(any, context.Context, *Transition) error { return nil }); r.Outcome != OutcomeDone {
		t.Errorf("the second demote: got %+v, want done", r)
	}
	r := s.act(first, b, late, &report{}, func(any, context.Context, *Transition) error {
		t.Error("the cancelled one was done")
		return nil
	})
	if r.Outcome != OutcomeUnchanged {
		t.Errorf("the first demote: got %+v, want unchanged", r)
	}
}
