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

// Progress tells operators how far the act of ctx has come, in percent, or
// less than zero when that is not known. Outside of an act it does nothing.
func Progress(ctx context.Context, percent float64, format string, args ...any) {
	if r := reportOf(ctx); r != nil {
		r.progress(percent, fmt.Sprintf(format, args...))
	}
}

// Note keeps what the act of ctx has seen, to be shown with its outcome; the
// last one counts. Outside of an act it does nothing.
func Note(ctx context.Context, format string, args ...any) {
	if r := reportOf(ctx); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.noted = fmt.Sprintf(format, args...)
	}
}
