package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// Main is the main function of a plugin's binary: it serves the plugin to the
// supervisor that started it, and never returns. Run by hand it answers
// questions; see --help.
func Main(p Plugin) {
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		fmt.Fprintf(os.Stderr, "%s is a plugin of deputy\n", p.name)
		os.Exit(64)
	}
	serve(p)
	os.Exit(0)
}

// graceTime is how long an act may go on once the host is gone.
const graceTime = 500 * time.Millisecond

// serve returns when the host is gone or has told the process to end; what
// still runs then ends with the process.
func serve(p Plugin) {
	// The host decides when this process ends: it has to demote first. These
	// signals reach a whole control group at once. They are caught rather than
	// ignored, because programs that an act starts would inherit that.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	s := &server{plugin: p, log: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	served, orphaned := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
			VersionedPlugins: map[int]goplugin.PluginSet{wire.Version: {wire.ServiceName: adapter{s: s}}},
			GRPCServer:       goplugin.DefaultGRPCServer,
			Logger:           hclog.NewNullLogger(),
		})
	}()
	go func() {
		defer close(orphaned)
		lifeline(s, os.Stdin)
	}()
	select {
	case <-served:
	case <-orphaned:
	}
}

// lifeline returns when the host is gone: the kernel then closes the other end
// of the standard input. Acts are told to end. What was promoted stays, for the
// next host to find.
func lifeline(s *server, in io.Reader) {
	_, _ = io.Copy(io.Discard, in)
	ctx, cancel := context.WithTimeoutCause(context.Background(), graceTime, errors.New("the host is gone"))
	defer cancel()
	_ = s.drain(ctx)
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
