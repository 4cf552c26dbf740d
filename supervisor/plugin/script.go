package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Script is a program that is run for what it does and plays no part in a
// role: nothing of its session outlives its run. Once it has ended by itself, a
// process that it started in another session is not found.
type Script struct {
	Argv []string          // the absolute path of a program that only root or UID can change, and its arguments
	Env  map[string]string // set with DEPUTY_ before the names, besides what plugins inherit
	In   []byte            // its standard input
	UID  int               // of the supervisor
	Log  *slog.Logger      // gets what it writes to its outputs
}

// ErrScriptRefused is a script that ended with 20: the same call is of no use
// again.
var ErrScriptRefused = errors.New("refused")

// Verify tells why the script could not be run.
func (s Script) Verify(ctx context.Context) error {
	return onDisk(ctx, "look at "+s.Argv[0], func() error { return trusted(s.Argv[0], s.UID) })
}

// Run runs the script until it ends by itself or ctx ends, and then kills all
// that it has started; at a deadline it first gets SIGTERM, and a second. It returns
// nil for exit status 0. It returns soon after ctx, even if nothing can
// kill the script. The kernel kills it when this process dies.
func (s Script) Run(ctx context.Context) error {
	var env []setting
	for name, value := range s.Env {
		env = append(env, setting{name, value})
	}
	says := &transcript{log: s.Log, level: slog.LevelInfo}
	r := newRun(program{kind: telling, argv: s.Argv, env: environ(env...), in: s.In, says: says}, s.UID)
	go func() { // which waits in the kernel for what cannot be killed, so nobody waits for it without a bound
		r.ended = r.live()
		close(r.gone)
	}()
	var cause error
	select {
	case <-r.gone:
		return s.result(r.ended, nil, says)
	case <-ctx.Done():
		cause = causeOf(ctx)
	}
	patience := quickDeath
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		r.finish()
		patience = graceTime + deathTime
	} else {
		r.destroy()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-r.gone:
		return s.result(r.ended, cause, says)
	case <-late.C:
		r.destroy()
		return fmt.Errorf("%w: could not be killed: %s", cause, r)
	}
}

// quickDeath is how long the end of a script is waited for when the process
// wants to end: its roles wait for the next one.
const quickDeath = 100 * time.Millisecond

func (s Script) result(e ending, cause error, says *transcript) error {
	switch {
	case e.cut:
		return errors.New(phrase(says, "cut short", cause.Error()))
	case e.err != nil:
		return fmt.Errorf("not started: %w", e.err)
	}
	switch e.state.ExitCode() {
	case exitDone:
		return nil
	case exitRefused:
		return fmt.Errorf("%w: %s", ErrScriptRefused, phrase(says, endOf(e.state)))
	}
	return errors.New(phrase(says, endOf(e.state)))
}
