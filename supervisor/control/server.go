package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// How long things may take on the socket.
const (
	Beat        = time.Second      // a watch says something at least so often
	askTime     = 5 * time.Second  // for what is asked of the records
	orderTime   = 10 * time.Second // for what they are told
	reloadTime  = 30 * time.Second // for a definition to be put in force, and another program to be looked at
	removeTime  = 10 * time.Minute // for forgetting a service, which waits for a whole ttl
	headerTime  = 2 * time.Second  // for a request to arrive
	writeTime   = 5 * time.Second  // for an answer, or a line of a watch, to be taken
	idleTime    = 30 * time.Second // between two requests on a connection
	goodbyeTime = 2 * time.Second  // for requests to end by themselves when the server ends
)

// ErrDefinition is the error of a Reload whose definition cannot be put in
// force.
var ErrDefinition = errors.New("the definition stays as it was")

// A Process is the program behind the socket.
type Process struct {
	ID      string `json:"id"` // of this start of it; another program in the same process has another
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// Reloaded is what a reload came to.
type Reloaded struct {
	Hash string `json:"hash"` // of the definition in force
	// Replaced: the program's file is another one by now, and takes the place of
	// this one next. It keeps the roles.
	Replaced bool `json:"replaced,omitempty"`
}

// A Member is the seat in an election that a Server tells about.
type Member interface {
	Status() supervisor.Status
	Watch(ctx context.Context) iter.Seq[supervisor.Status]
	Figures() supervisor.Figures
	Clear() error
}

// A Server serves the control socket of one service.
type Server struct {
	Socket  string // its path; the directory exists, and is this process's by its lock
	Member  Member
	Cluster supervisor.Cluster
	Reload  func(context.Context) (Reloaded, error)
	Process Process
	Level   *Level // of the whole process's log
	// Figures are those of all services of the process; nil is none but this one's.
	Figures iter.Seq[supervisor.Figures]
	Log     *slog.Logger

	lookup func(group string) (uint32, bool) // nil outside of tests: the system's groups
}

// Serve makes the socket and serves it until ctx ends. It returns when every
// request has ended and the socket is gone; nil when ctx ended it.
func (s *Server) Serve(ctx context.Context) error {
	l, done, err := listen(ctx, s.Socket)
	if err != nil {
		return err
	}
	defer done()
	lookup := s.lookup
	if lookup == nil {
		lookup = lookupGroup
	}
	own := uint32(os.Geteuid())
	return s.serve(ctx, &door{UnixListener: l, rightOf: func(p peer) right { return rightOf(p, own, lookup) }})
}

// serve serves the guests that l accepts.
func (s *Server) serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	server := &http.Server{
		Handler:           s.routes(&wg),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withGuest,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	defer server.Close()
	served := make(chan error, 1)
	wg.Go(func() { served <- server.Serve(l) })
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.Socket, err)
	case <-ctx.Done():
	}
	// Requests end with ctx; who connected and asks nothing is not waited for.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
	defer cancel()
	if err := server.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("end requests at %s: %w", s.Socket, err)
	}
	return nil
}
