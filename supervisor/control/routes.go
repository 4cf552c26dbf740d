package control

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// routes returns what is served. The requests that run are counted in wg.
func (s *Server) routes(wg *sync.WaitGroup) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, need right, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			g := guestOf(r.Context())
			if g.right < need {
				w.Header().Set("Connection", "close")
				writeError(w, denied(need, g.name()))
				return
			}
			h(w, r)
		})
	}
	see := func(pattern string, h func(*http.Request) (any, error)) {
		handle("GET "+pattern, read, answer(askTime, h))
	}
	answerFor := func(d time.Duration, pattern string, h func(*http.Request) (any, error)) {
		handle(pattern, steer, answer(d, func(r *http.Request) (any, error) {
			v, err := h(r)
			log := s.Log.With("by", guestOf(r.Context()).name(), "order", r.Method+" "+r.URL.Path)
			if err != nil {
				log.Warn("order not carried out", "cause", err)
			} else {
				log.Info("order carried out")
			}
			return v, err
		}))
	}
	orderFor := func(d time.Duration, pattern string, h func(*http.Request) error) {
		answerFor(d, pattern, func(r *http.Request) (any, error) { return struct{}{}, h(r) })
	}
	order := func(pattern string, h func(*http.Request) error) { orderFor(orderTime, pattern, h) }

	see("/status", func(*http.Request) (any, error) { return s.Member.Status(), nil })
	handle("GET /watch", read, func(w http.ResponseWriter, r *http.Request) {
		stream(w, r, s.Member.Watch, s.Member.Status)
	})
	see("/figures", func(*http.Request) (any, error) { return s.ours(s.Member.Figures()), nil })
	handle("GET /figures/all", read, s.figures)
	see("/log-level", func(*http.Request) (any, error) { return s.Level.Get(), nil })
	order("PUT /log-level", func(r *http.Request) error {
		level, err := body[LogLevel](r)
		if err == nil {
			s.Level.Set(level)
		}
		return err
	})
	see("/goroutines", func(*http.Request) (any, error) {
		var b strings.Builder
		err := pprof.Lookup("goroutine").WriteTo(&b, 1) // counted, not told apart, so that all stand still but shortly
		return b.String(), err
	})
	order("POST /clear", func(*http.Request) error { return s.Member.Clear() })
	answerFor(reloadTime, "POST /reload", func(r *http.Request) (any, error) { return s.Reload(r.Context()) })
	see("/process", func(*http.Request) (any, error) { return s.Process, nil })

	see("/services", func(r *http.Request) (any, error) { return s.Cluster.Services(r.Context()) })
	see("/services/{service}/state", func(r *http.Request) (any, error) {
		return s.Cluster.State(r.Context(), r.PathValue("service"))
	})
	handle("GET /services/{service}/watch", read, func(w http.ResponseWriter, r *http.Request) {
		stream(w, r, func(ctx context.Context) iter.Seq[supervisor.State] {
			return s.Cluster.Watch(ctx, r.PathValue("service"))
		}, nil)
	})
	see("/services/{service}/history", func(r *http.Request) (any, error) {
		return s.Cluster.History(r.Context(), r.PathValue("service"))
	})
	order("POST /services/{service}/reservation", func(r *http.Request) error {
		v, err := body[supervisor.Reservation](r)
		if err != nil {
			return err
		}
		v.By = guestOf(r.Context()).name()
		return s.Cluster.Request(r.Context(), r.PathValue("service"), v)
	})
	order("DELETE /services/{service}/reservation/{id}", func(r *http.Request) error {
		return s.Cluster.Cancel(r.Context(), r.PathValue("service"), r.PathValue("id"))
	})
	order("PUT /services/{service}/pause", func(r *http.Request) error {
		v, err := body[supervisor.Pause](r)
		if err != nil {
			return err
		}
		v.By = guestOf(r.Context()).name()
		return s.Cluster.Pause(r.Context(), r.PathValue("service"), v)
	})
	order("DELETE /services/{service}/pause", func(r *http.Request) error {
		return s.Cluster.Resume(r.Context(), r.PathValue("service"))
	})
	order("PUT /services/{service}/bans/{node}", func(r *http.Request) error {
		v, err := body[supervisor.Ban](r)
		if err != nil {
			return err
		}
		v.Node, v.By = r.PathValue("node"), guestOf(r.Context()).name()
		return s.Cluster.Ban(r.Context(), r.PathValue("service"), v)
	})
	order("DELETE /services/{service}/bans/{node}", func(r *http.Request) error {
		return s.Cluster.Unban(r.Context(), r.PathValue("service"), r.PathValue("node"))
	})
	orderFor(removeTime, "DELETE /services/{service}", func(r *http.Request) error {
		return s.Cluster.Remove(r.Context(), r.PathValue("service"))
	})
	order("PUT /nodes/{node}/drain", func(r *http.Request) error {
		v, err := body[supervisor.Drain](r)
		if err != nil {
			return err
		}
		v.Node, v.By = r.PathValue("node"), guestOf(r.Context()).name()
		return s.Cluster.Drain(r.Context(), v)
	})
	order("DELETE /nodes/{node}/drain", func(r *http.Request) error {
		return s.Cluster.Undrain(r.Context(), r.PathValue("node"))
	})

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1) // from within a connection that Serve has not closed yet
		defer wg.Done()
		patience(w) // the one of the request before has run out
		mux.ServeHTTP(w, r)
	})
}

// figures answers with the figures of all services of the process, one after the
// other, as package gob has them: they are for programs of this kind alone, and
// there may be thousands.
func (s *Server) figures(w http.ResponseWriter, _ *http.Request) {
	all := s.Figures
	if all == nil {
		all = slices.Values([]supervisor.Figures{s.Member.Figures()})
	}
	enc := gob.NewEncoder(w)
	for f := range all {
		patience(w)
		if enc.Encode(s.ours(f)) != nil {
			return // whoever does not read the answer has gone
		}
	}
}

// ours are figures that say which process has counted them.
func (s *Server) ours(f supervisor.Figures) supervisor.Figures {
	f.Process = s.Process.ID
	return f
}

// answer serves one question within a bounded time.
func answer(within time.Duration, h func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // what is left to read is the end
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		v, err := h(r.WithContext(ctx))
		patience(w)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // whoever does not read the answer has gone
	}
}

// patience bounds how long the next write may take.
func patience(w http.ResponseWriter) {
	// The error says that w has no deadlines: then it is a recorder's.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
}

// body reads an order. An unknown key is an error: what the one who asks meant
// by it would be left out.
func body[T any](r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(io.LimitReader(r.Body, maxOrder))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return v, nil
}
