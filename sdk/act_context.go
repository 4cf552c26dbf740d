package sdk

import (
	"context"
	"fmt"
	"sync"
)

// A report is what an act says while it runs.
type report struct {
	mu       sync.Mutex
	noted    string
	progress func(percent float64, message string)
}

func (r *report) note() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.noted
}

type reportKey struct{}

func reportOf(ctx context.Context) *report {
	r, _ := ctx.Value(reportKey{}).(*report)
	return r
}

// Progress tells operators how far the act of ctx has come: in percent, or less
// than zero when that is not known, with a few words. deputy status shows the last
// one while the act runs. It never blocks and may be called at any rate and from
// any goroutine, but not everything is shown. ctx is that of the act, or made from
// it. In anything but an act it does nothing.
func Progress(ctx context.Context, percent float64, format string, args ...any) {
	if r := reportOf(ctx); r != nil {
		r.progress(percent, fmt.Sprintf(format, args...))
	}
}

// Note keeps what the act of ctx has seen, to be shown with its outcome, in the log,
// in status and in the history. The last one counts, and only where the act
// returns nil or a plain ErrAlready: any other error has words of its own. It may
// be called from any goroutine until the act returns. In anything but an act it
// does nothing.
func Note(ctx context.Context, format string, args ...any) {
	if r := reportOf(ctx); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.noted = fmt.Sprintf(format, args...)
	}
}
