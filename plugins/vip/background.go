package main

import (
	"context"
	"errors"
	"time"
)

// A background is work that goes on after the act that began it. A nil one has
// ended.
type background struct {
	stop context.CancelCauseFunc
	over chan struct{}
}

func begin(work func(ctx context.Context)) *background {
	ctx, stop := context.WithCancelCause(context.Background())
	b := &background{stop: stop, over: make(chan struct{})}
	go func() { // end waits for it
		defer close(b.over)
		work(ctx)
	}()
	return b
}

// quit tells the work to end, soon.
func (b *background) quit() {
	if b != nil {
		b.stop(errors.New("another act has begun"))
	}
}

// end returns when the work is over.
func (b *background) end() {
	if b.quit(); b != nil {
		<-b.over
	}
}

// sleep reports false if ctx has ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
