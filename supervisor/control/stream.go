package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"
)

// stream writes each value of seq as one line of JSON until seq or the request
// ends. When seq has nothing new for a Beat it writes again, to or without
// (nil) a fresh value.
func stream[T any](w http.ResponseWriter, r *http.Request, seq func(context.Context) iter.Seq[T], again func() T) {
	ctx, cancel := context.WithCancelCause(r.Context())
	values := make(chan T)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errHungUp)
	wg.Go(func() {
		defer close(values)
		for v := range seq(ctx) {
			select {
			case values <- v:
			case <-ctx.Done():
				return
			}
		}
	})

	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the request has been read; what is left to read is its end
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	beat := time.NewTicker(Beat)
	defer beat.Stop()
	for {
		var err error
		select {
		case v, ok := <-values:
			if !ok {
				return
			}
			patience(w)
			err = enc.Encode(v)
			beat.Reset(Beat)
		case <-beat.C:
			patience(w)
			if again != nil {
				err = enc.Encode(again())
			} else {
				_, err = io.WriteString(w, "\n")
			}
		}
		if err != nil || rc.Flush() != nil {
			return
		}
	}
}

// errHungUp ends a watch whose reader has gone.
var errHungUp = errors.New("the reader has gone")
