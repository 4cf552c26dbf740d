package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
)

// The exit codes of an act. Every other one, and a signal, is Unknown.
const (
	exitDone    = 0
	exitAlready = 10
	exitRefused = 20
	exitStale   = 40
	exitRetry   = 75 // EX_TEMPFAIL of sysexits.h
)

// outcomeOf returns what the end of an act says, but for the words.
func outcomeOf(s *os.ProcessState) sdk.Result {
	switch s.ExitCode() {
	case exitDone:
		return sdk.Result{Outcome: sdk.OutcomeDone}
	case exitAlready:
		return sdk.Result{Outcome: sdk.OutcomeAlready}
	case exitRefused:
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Refused: true}
	case exitRetry:
		return sdk.Result{Outcome: sdk.OutcomeUnchanged}
	case exitStale:
		return sdk.Result{Outcome: sdk.OutcomeStaleTerm}
	}
	return sdk.Result{Outcome: sdk.OutcomeUnknown}
}

// result returns what an act came to. The cause is why it was told to end.
func result(a sdk.Action, e ending, cause error, says *transcript) sdk.Result {
	switch {
	case e.cut:
		return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: phrase(says, "cut short", cause.Error())}
	case e.err != nil:
		// What was never started has changed nothing. That is no proof of
		// being demoted, and a demotion is worth another try in any case.
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + e.err.Error(), Refused: a == sdk.Promote && lasting(e.err)}
	}
	r := outcomeOf(e.state)
	switch {
	case r.Outcome.OK():
		r.Detail = says.last(1)
	case r.Refused:
		r.Detail = phrase(says)
	default:
		r.Detail = phrase(says, endOf(e.state))
	}
	return r
}

// lasting reports whether a program that could not be started for err will not
// be startable soon.
func lasting(err error) bool {
	for _, passing := range []error{ErrKilled, ErrActing, syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY} {
		if errors.Is(err, passing) {
			return false
		}
	}
	return true
}

// health returns what a check came to, by the exit codes of Nagios plugins, and
// what it said. Without an answer there is only the error.
func health(e ending, cause error, says *transcript, lenient bool) (h sdk.Health, a answer, err error) {
	switch {
	case e.cut:
		return h, a, errors.New(phrase(says, "cut short", cause.Error()))
	case e.err != nil:
		return h, a, fmt.Errorf("not started: %w", e.err)
	case e.state.ExitCode() < nagiosOK || e.state.ExitCode() > nagiosUnknown:
		return h, a, errors.New(phrase(says, endOf(e.state)))
	}
	a = says.told()
	return a.health(e.state.ExitCode(), lenient), a, nil
}

// endOf tells how a program ended.
func endOf(s *os.ProcessState) string {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return "ended by " + unix.SignalName(w.Signal())
	}
	return fmt.Sprintf("exit code %d", s.ExitCode())
}

// phrase joins words and what was said last.
func phrase(says *transcript, words ...string) string {
	if last := says.last(keptLines); last != "" {
		words = append(words, last)
	}
	return strings.Join(words, ": ")
}

// causeOf tells why a context ended.
func causeOf(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errors.New("its time is over")
}
