package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/control"
	"github.com/deputy-ha/deputy/supervisor/http"
	"github.com/deputy-ha/deputy/supervisor/systemd"
)

func (a *app) httpCommand() *cobra.Command {
	level, address := new(slog.LevelVar), ""
	c := &cobra.Command{
		Use:   "http",
		Short: "Serve health for load balancers, and what the services here are, over HTTP",
		Long: "Serve over HTTP what the services of this node are. Nothing is changed that way. Their\n" +
			"supervisors are asked at each request, and nothing is remembered.\n\n" +
			"  GET /services/NAME/primary  200 while this node is primary, and else 503\n" +
			"  GET /services/NAME/standby  200 while it is demoted, fit, and not drained\n" +
			"  GET /services/NAME/healthy  200 while it is primary or standby and its checks pass\n" +
			"  GET /services/NAME          a report, as in `deputy status -o json`\n" +
			"  GET /services               the reports of all services that run here\n" +
			"  GET /metrics                what Prometheus reads, see deputy-metrics(7)\n" +
			"  GET /healthz                200 while this process itself answers\n\n" +
			"The first three also answer HEAD and OPTIONS, have a JSON body that tells why, and are\n" +
			"bound to the lease: no 200 for primary is sent from the moment on at which another node\n" +
			"could be primary. A service that is not known here is 404.\n\n" +
			"It listens where [http] in deputy.toml says. It is another process than the supervisors,\n" +
			"and nothing depends on it; what it reads of its settings it reads once: restart it.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			if address == "" {
				n, err := a.settings()
				if err != nil {
					return err
				}
				address = n.Listen
			} else if _, _, err := net.SplitHostPort(address); err != nil {
				return mark(fmt.Errorf("--listen is host:port, like %q, not %q", config.DefaultListen, address), errUsage)
			}
			return a.serveHTTP(ctx, address, newLog(a.stderr, a.env, level))
		},
	}
	c.Flags().StringVar(&address, "listen", "", "`host:port` to serve at, in place of what deputy.toml says")
	c.Flags().TextVar(level, "log-level", level, "debug, info, warn or error")
	return c
}

// serveHTTP serves at an address until ctx ends, and returns when every answer
// has been given.
func (a *app) serveHTTP(ctx context.Context, address string, log *slog.Logger) error {
	pid1, err := systemd.NewNotifier(a.env)
	if err != nil {
		return err
	}
	defer pid1.Close()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%w%s", err, a.cureOf(err))
	}
	k := newSockets(a)
	defer k.close()
	log.Info("serves HTTP", "address", l.Addr().String())
	tell := func(assignments ...string) {
		if err := pid1.Send(assignments...); err != nil {
			log.Warn("systemd was not told", "cause", err)
		}
	}
	tell("READY=1", "STATUS=serves at "+l.Addr().String())
	told := make(chan struct{})
	served := context.AfterFunc(ctx, func() {
		defer close(told)
		tell("STOPPING=1")
	})
	defer func() {
		if !served() {
			<-told
		}
	}()
	return http.Serve(ctx, l, http.New(k, log), log)
}

// cureOf is what to do about an address at which nothing can be served.
func (a *app) cureOf(err error) string {
	where := fmt.Sprintf("listen of [http] in %s, or --listen", a.paths.config)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return ": another process serves there; `ss -ltnp` tells which: end it, or change " + where
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return ": no interface of this node has that address; bring it up, or change " + where
	case errors.Is(err, fs.ErrPermission):
		return ": ports below 1024 are for root; change " + where
	}
	return ": change " + where
}

// sockets are the services of this node, by way of their control sockets.
type sockets struct {
	*app
	mu      sync.Mutex
	clients map[string]*control.Client // of those that were asked, and have a socket
}

var _ http.Node = (*sockets)(nil)

func newSockets(a *app) *sockets { return &sockets{app: a, clients: map[string]*control.Client{}} }

func (k *sockets) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clients {
		c.Close()
	}
}

// client returns the way to a service's supervisor.
func (k *sockets) client(service string) (*control.Client, error) {
	if err := config.CheckName(service); err != nil { // a path, perhaps
		return nil, fmt.Errorf("%w: %w", supervisor.ErrNoService, err)
	}
	_, absent := os.Lstat(filepath.Join(k.dir(service), control.SocketName))
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clients[service]
	switch {
	case absent == nil && c == nil:
		c = control.NewKeepingClient(k.dir(service))
		k.clients[service] = c
	case absent != nil && c != nil:
		c.Close()
		delete(k.clients, service)
	}
	if absent == nil {
		return c, nil
	}
	if _, err := os.Stat(filepath.Join(k.paths.services, service+".toml")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w %q: it has neither a supervisor here nor a definition in %s", supervisor.ErrNoService, service, k.paths.services)
	}
	return nil, fmt.Errorf("ask %s: %w at %s", service, control.ErrNoDaemon, k.dir(service))
}

// put puts a question to a service's supervisor.
func put[T any](k *sockets, service string, question func(*control.Client) (T, error)) (v T, err error) {
	c, err := k.client(service)
	if err != nil {
		return v, err
	}
	if v, err = question(c); err != nil {
		err = fmt.Errorf("ask %s: %w", service, err)
	}
	return v, err
}

// Services returns the names of the services that have a control socket here.
func (k *sockets) Services() []string { return k.daemons() }

// Status returns what the service's supervisor says, and when it was asked. One
// that gives its place to another program keeps its role, and has no socket for a
// moment: that is waited for, or balancers would cut connections that can be kept.
func (k *sockets) Status(ctx context.Context, service string) (supervisor.Status, sdk.Instant, error) {
	for began := sdk.Now(); ; {
		asked := sdk.Now()
		s, err := k.status(ctx, service)
		if !errors.Is(err, control.ErrNoDaemon) || asked.Sub(began) >= absence {
			return s, asked, err
		}
		select {
		case <-time.After(absence / 8):
		case <-ctx.Done():
			return s, asked, err
		}
	}
}

// absence is how long a supervisor may be away: with some time to ask the next
// one, less than answers of health have.
const absence = http.Age * 4 / 5

func (k *sockets) status(ctx context.Context, service string) (supervisor.Status, error) {
	return put(k, service, func(c *control.Client) (supervisor.Status, error) { return c.Status(ctx) })
}

// Report returns the same as a report.
func (k *sockets) Report(ctx context.Context, service string) (supervisor.Report, error) {
	s, err := k.status(ctx, service)
	if err != nil {
		return supervisor.Report{}, err
	}
	return supervisor.NewReport(s.State, &s), nil
}

// Figures returns what the service's supervisor has counted and timed.
func (k *sockets) Figures(ctx context.Context, service string) (supervisor.Figures, error) {
	return put(k, service, func(c *control.Client) (supervisor.Figures, error) { return c.Figures(ctx) })
}

// AllFigures returns the same of all services that share its process.
func (k *sockets) AllFigures(ctx context.Context, service string) ([]supervisor.Figures, error) {
	return put(k, service, func(c *control.Client) ([]supervisor.Figures, error) { return c.AllFigures(ctx) })
}

// History returns the service's changes of role, as its supervisor reads them.
func (k *sockets) History(ctx context.Context, service string) ([]supervisor.Change, error) {
	return put(k, service, func(c *control.Client) ([]supervisor.Change, error) { return c.History(ctx, service) })
}
