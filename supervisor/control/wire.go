package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/deputy-ha/deputy/supervisor"
)

// maxOrder bounds the body of a request.
const maxOrder = 64 << 10

// A failure is the body of an answer other than 2xx.
type failure struct {
	Error string `json:"error"`
	Kind  string `json:"kind,omitempty"` // which of the kinds below, so that the client's callers can branch
}

// A kind is an error that callers branch on, as it goes over the socket.
type kind struct {
	name   string
	err    error
	status int
}

func kinds() []kind {
	return []kind{
		{"denied", ErrDenied, http.StatusForbidden},
		{"refused", supervisor.ErrRefused, http.StatusConflict},
		{"busy", supervisor.ErrBusy, http.StatusConflict},
		{"no-service", supervisor.ErrNoService, http.StatusNotFound},
		{"not-here", supervisor.ErrNotHere, http.StatusConflict},
		{"unreachable", supervisor.ErrUnreachable, http.StatusServiceUnavailable},
		{"timeout", context.DeadlineExceeded, http.StatusGatewayTimeout},
		{"definition", ErrDefinition, http.StatusConflict},
		{"invalid", errInvalid, http.StatusBadRequest},
	}
}

var errInvalid = errors.New("the request makes no sense")

// writeError answers with an error.
func writeError(w http.ResponseWriter, err error) {
	f, status := failure{Error: err.Error()}, http.StatusInternalServerError
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			f.Kind, status = k.name, k.status
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(f) // whoever does not read the answer has gone
}

// A remote error reads as it did where it happened and is what it was there.
type remote struct {
	text string
	kind error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.kind }

// readError is the inverse of writeError.
func readError(res *http.Response) error {
	var f failure
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, maxOrder)).Decode(&f); err != nil || f.Error == "" {
		return errors.New("the daemon answers " + res.Status)
	}
	for _, k := range kinds() {
		if f.Kind == k.name {
			return &remote{f.Error, k.err}
		}
	}
	return errors.New(f.Error)
}
