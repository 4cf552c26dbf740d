package http

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// New returns the handler of all that a node serves over HTTP; it only reads.
func New(n Node, log *slog.Logger) http.Handler { return routes(n, log, sdk.Now) }

// routes is New with a clock, which tests set.
func routes(n Node, log *slog.Logger, now func() sdk.Instant) http.Handler {
	mux := http.NewServeMux()
	h := &health{node: n, now: now, log: log}
	for _, q := range questions() {
		mux.HandleFunc("GET /services/{service}/"+q.path, h.answer(q.no))
		// Whose balancer asks by OPTIONS wants the status alone.
		mux.HandleFunc("OPTIONS /services/{service}/"+q.path, h.answer(q.no))
	}
	r := &reports{node: n, log: log}
	mux.HandleFunc("GET /services", r.all)
	mux.HandleFunc("GET /services/{service}", r.one)
	mux.Handle("GET /metrics", metrics(n, now))
	mux.HandleFunc("GET /healthz", alive)
	status := page(n)
	mux.Handle("GET /{$}", status)
	mux.Handle("GET /page/", status)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.ContentLength != 0 { // -1: of unknown length
			w.Header().Set("Connection", "close") // so that it is not read
			writeJSON(w, http.StatusRequestEntityTooLarge, failure{"nothing here takes a body"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// alive answers for this process itself, and asks nobody.
func alive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Alive bool `json:"alive"`
	}{true})
}

// A failure is the body of an answer that has nothing else to say.
type failure struct {
	Error string `json:"error"`
}

// statusOf is what an error of a Node is over HTTP.
func statusOf(err error) int {
	if errors.Is(err, supervisor.ErrNoService) {
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}

// writeJSON answers with a value, for this once.
func writeJSON(w http.ResponseWriter, status int, v any) {
	writeHead(w, status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // whoever does not read the answer has gone
}

func writeHead(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}
