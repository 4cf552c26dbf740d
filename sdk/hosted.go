package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// The bounds of an ending whose host is gone.
const (
	graceTime = 500 * time.Millisecond // for the act that runs
	deathTime = 900 * time.Millisecond // for everything: a second is promised
)

// hosted serves a plugin until the host is gone or has told the process to
// end, and returns the exit code. What still runs then ends with the process.
func hosted(p Plugin) int {
	// The host decides when this process ends: it has to demote first. These
	// signals reach a whole control group at once, and the last is that the
	// host does not read our log any more. They are caught rather than ignored,
	// because programs that an act starts would inherit that.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)

	spare()
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	out, err := takeStdout()
	if err != nil {
		log.Error("plugin not served", "cause", err)
		return 1
	}
	s := serverOf(context.Background(), p, log, Now)
	serving, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	offers, served := make(chan *goplugin.ReattachConfig, 1), make(chan struct{})
	go goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{wire.Version: {wire.ServiceName: adapter{s: s}}},
		GRPCServer:       newServer,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: libraryLog{serving, log}, DisableTime: true}),
		// By this go-plugin leaves the process alone: its outputs, its signals
		// and its end are ours.
		Test: &goplugin.ServeTestConfig{Context: serving, ReattachConfigCh: offers, CloseCh: served},
	})
	select {
	case o := <-offers:
		// The last field is a certificate, which a socket of ours does not need.
		fmt.Fprintf(out, "%d|%d|%s|%s|%s|\n", goplugin.CoreProtocolVersion, o.ProtocolVersion, o.Addr.Network(), o.Addr, o.Protocol)
		out.Close()
	case <-served: // it has told the log why
		return 1
	}
	orphaned := make(chan struct{})
	go func() {
		defer close(orphaned)
		_, _ = io.Copy(io.Discard, os.Stdin) // the kernel closes the other end when the host is gone
	}()
	select {
	case <-served:
		return 0
	case <-orphaned:
	}
	go func() {
		ctx, cancel := context.WithTimeoutCause(context.Background(), graceTime, errHostGone)
		defer cancel()
		_ = s.drain(ctx) // what was promoted stays, for the next host to find
		stop(errHostGone)
	}()
	select {
	case <-served: // and the socket is removed
	case <-time.After(deathTime):
	}
	return 0
}

// spare keeps the process small: there may be many plugins on a node, and a call
// or two a second is all that each has to do. Where the environment says
// otherwise, it is heeded, and an author's function may set it otherwise, too.
func spare() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // at least 2 MB are filled before the runtime collects, instead of 4
	}
	if os.Getenv("GOMAXPROCS") == "" {
		// Each processor keeps some memory of each size at hand. With two a
		// renewal does not wait for a check that computes.
		runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	}
}

// bufferSize is that of a connection's buffers: most calls have less than 1 KB.
const bufferSize = 4 << 10

func newServer(o []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(o, grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize))...)
}

var errHostGone = errors.New("the host is gone")

// takeStdout returns the standard output, of which the host expects one line.
// Whatever else this process prints, or a program that it starts, goes to the
// standard error from then on, which is the log.
func takeStdout() (*os.File, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Dup(syscall.Stdout)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("keep the standard output: %w", err)
	}
	if err := syscall.Dup3(syscall.Stderr, syscall.Stdout, 0); err != nil {
		return nil, fmt.Errorf("print to the log: %w", err)
	}
	return os.NewFile(uintptr(fd), "handshake"), nil
}

// A libraryLog takes the lines that go-plugin logs while it serves. When it is
// told to end it complains of that.
type libraryLog struct {
	serving context.Context
	log     *slog.Logger
}

func (l libraryLog) Write(line []byte) (int, error) {
	if l.serving.Err() == nil {
		l.log.Warn("go-plugin says", "cause", strings.TrimSpace(string(line)))
	}
	return len(line), nil
}

// An adapter is a server as go-plugin wants it.
type adapter struct {
	goplugin.NetRPCUnsupportedPlugin
	s *server
}

// GRPCServer registers the service.
func (a adapter) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	wire.RegisterPluginServiceServer(g, a.s)
	return nil
}

// GRPCClient is for hosts, which this is not.
func (a adapter) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}
