package sdk

import (
	"errors"
	"fmt"
	"time"
)

// Sentinels of acts.
var (
	// ErrAlready is what an act returns that had nothing to do: OutcomeAlready. Wrap
	// it to tell what was seen: fmt.Errorf("has %s: %w", address, sdk.ErrAlready).
	// Of a promote it says that the part was primary before, with these settings,
	// and is what lets a supervisor that comes back keep the role.
	ErrAlready = errors.New("already so")
	// ErrExpired is what Renew returns when what it extends has expired: the
	// part does not act as primary any more, and the node leaves the role at
	// once. Wrap it to tell what was seen.
	ErrExpired = errors.New("expired")
	// ErrSuperseded is the cause (context.Cause) of an act's context that ends
	// because a demotion was asked for. The demotion waits until the act returns.
	ErrSuperseded = errors.New("a demotion was asked for")
	// ErrDrained is the cause of an act's context that ends because the process
	// is told to end: return soon, and leave what is promoted as it is.
	ErrDrained = errors.New("the plugin is told to end")
)

// A KeyError is a mistake in one setting. Return one from the Validate method of a
// struct of settings, or from New's function; several go by errors.Join. It is told
// with the file and line of the setting.
type KeyError struct {
	Key string // the setting's key, a dotted path; of a Validate within the struct that has it
	Err error  // what is wrong with it: "is 0, must be at least 1"
}

// Error returns the key and what is wrong with it.
func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the setting.
func (e *KeyError) Unwrap() error { return e.Err }

// A verdict is an error of an act that says more than "it failed".
type verdict struct {
	err     error
	refused bool
	stale   bool
	after   time.Duration
}

func (v *verdict) Error() string { return v.err.Error() }
func (v *verdict) Unwrap() error { return v.err }

// Unchanged tells that an act failed and what was before still is, as seen by
// looking: OutcomeUnchanged. It is worth another try, which the service's retries
// allow or not. Return a plain error where that was not seen. Of nil it is nil. The
// result wraps err, says what it says, and may be wrapped in turn: the outermost of
// Unchanged, Retry, Refuse and Stale counts.
func Unchanged(err error) error { return verdictOf(verdict{err: err}) }

// Retry is Unchanged, and not to be tried again before the given time has passed.
func Retry(err error, after time.Duration) error { return verdictOf(verdict{err: err, after: after}) }

// Refuse is Unchanged, and trying again is of no use: somebody has to change
// something first.
func Refuse(err error) error { return verdictOf(verdict{err: err, refused: true}) }

// Stale tells that what the plugin works on has seen a newer term, so that
// nothing was changed: OutcomeStaleTerm. Terms that were asked of this process
// are refused before the author's code runs; this is for those that the
// database or the name server keeps.
func Stale(err error) error { return verdictOf(verdict{err: err, stale: true}) }

func verdictOf(v verdict) error {
	if v.err == nil {
		return nil
	}
	return &v
}

// resultOf is what an author's return value says.
func resultOf(err error, noted string) Result {
	if err == nil {
		return Result{Outcome: OutcomeDone, Detail: noted}
	}
	r := judge(err)
	if r.Detail = err.Error(); err == ErrAlready { //nolint:errorlint // wrapped, it has words of its own
		r.Detail = noted
	}
	return r
}

// judge finds the outermost error of this package that err wraps. Of several
// that are joined, the worst counts: one that is plain makes all unknown.
func judge(err error) Result {
	switch e := err.(type) { //nolint:errorlint // it goes from one to the next itself
	case *verdict:
		if e.stale {
			return Result{Outcome: OutcomeStaleTerm}
		}
		return Result{Outcome: OutcomeUnchanged, Refused: e.refused, RetryAfter: e.after}
	case interface{ Unwrap() error }:
		if below := e.Unwrap(); below != nil {
			return judge(below)
		}
	case interface{ Unwrap() []error }:
		if len(e.Unwrap()) == 0 {
			break
		}
		all := Result{Outcome: OutcomeAlready}
		for _, one := range e.Unwrap() {
			switch r := judge(one); r.Outcome {
			case OutcomeUnknown:
				return r
			case OutcomeStaleTerm:
				all = r
			case OutcomeUnchanged:
				if all.Outcome == OutcomeStaleTerm {
					continue
				}
				all = Result{Outcome: OutcomeUnchanged, Refused: all.Refused || r.Refused, RetryAfter: max(all.RetryAfter, r.RetryAfter)}
			}
		}
		return all
	default:
		if err == ErrAlready { //nolint:errorlint // this very one
			return Result{Outcome: OutcomeAlready}
		}
	}
	return Result{Outcome: OutcomeUnknown}
}

// staleTerm tells why an act is refused for its term.
func staleTerm(t, seen Term) Result {
	return Result{Outcome: OutcomeStaleTerm, Detail: fmt.Sprintf("term %d: term %d was seen", t, seen)}
}
