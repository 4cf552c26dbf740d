package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// The bounds of a start.
const (
	startTime  = 5 * time.Second // until the process says where it listens
	dialTime   = time.Second     // until it takes the connection
	maxMessage = 4 << 20         // bytes of one message of a plugin
)

// A life is one process of a plugin, from its start until all of it is gone.
// go-plugin does the handshake, agrees on a version and connects; it starts,
// signals and reads nothing itself, because its own ways of doing so can block
// for ever or end the supervisor.
type life struct {
	run     *run
	dir     string // of its socket
	says    *transcript
	wire    *wire.Client // once it is connected
	over    chan struct{}
	started time.Time

	client *goplugin.Client
	conn   atomic.Pointer[grpc.ClientConn]
	shake  *io.PipeReader // what go-plugin reads as the standard output
	shakes *io.PipeWriter
	offer  string // the handshake's line; set before go-plugin reads it
	begun  bool   // the run is

	shown bool // it has taken calls; guarded by its Process's mu

	mu     sync.Mutex
	acts   int   // that run
	reason error // why it was killed; nil while it was not

	inflight atomic.Int32  // calls that are no acts
	asked    chan struct{} // has one when a call has begun
	signs    atomic.Int32  // of life, since the last look
	suspect  atomic.Bool   // a call has got no answer
}

// newLife returns a process that is not started yet.
func newLife(p program, uid int, dir string) *life {
	l := &life{dir: dir, says: p.says, over: make(chan struct{}), asked: make(chan struct{}, 1)}
	l.shake, l.shakes = io.Pipe()
	l.run = newRun(p, uid)
	l.run.out = l.out
	out, errs := &cutter{limit: maxLine, each: l.says.out}, &cutter{limit: maxRecord, each: l.says.err}
	l.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, own string) (runner.Runner, error) {
			_ = os.Remove(own) // one directory is enough, and paths of sockets are short
			l.run.env = slices.Concat(l.run.env, cmd.Env, []string{goplugin.EnvUnixSocketDir + "=" + dir})
			return supervised{l}, nil
		},
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		StartTimeout:     startTime,
		SyncStdout:       out,
		SyncStderr:       errs,
		Logger:           hclog.NewNullLogger(),
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithIdleTimeout(0),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second}, MinConnectTimeout: dialTime}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				l.conn.Store(conn) // which go-plugin forgets when it cannot connect
				return stream(ctx, desc, conn, method, o...)
			}),
		},
	})
	return l
}

// start starts the process, and returns once it takes calls, or with an error
// once it is told to end. What it begins goes on until over is closed; tidy is
// called right before.
func (l *life) start(ctx context.Context, tidy func()) error {
	l.started = time.Now()
	connected := make(chan error, 1)
	go func() { // until over
		defer close(l.over)
		defer tidy()
		err := l.connect()
		if err != nil {
			l.run.destroy()
		}
		if !l.begun {
			l.run.ended.err = err
			close(l.run.gone)
		}
		connected <- err
		<-l.run.gone
		l.hangUp()
		l.client.Kill() // only tidies: the process is gone
		l.hangUp()      // from what that may have tried again
	}()
	var err error
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = causeOf(ctx)
		l.kill(err)
	}
	if err != nil {
		return l.explain(err)
	}
	l.wire = wire.New(l.conn.Load())
	return nil
}

// connect has go-plugin start and connect.
func (l *life) connect() error {
	if _, err := l.client.Start(); err != nil {
		return err
	}
	_, err := l.client.Client()
	return err
}

func (l *life) hangUp() {
	if conn := l.conn.Load(); conn != nil {
		conn.Close()
	}
}

// out takes a line of the standard output. The first that is a handshake is
// go-plugin's; all others are the plugin's own words.
func (l *life) out(line []byte) {
	parts := strings.Split(strings.TrimSpace(string(line)), "|")
	if l.offer != "" || len(parts) < 5 || !isNumber(parts[0]) || !isNumber(parts[1]) {
		l.says.out(line)
		return
	}
	l.offer = strings.Join(parts, "|")
	_, _ = io.WriteString(l.shakes, l.offer+"\n")
	_ = l.shakes.Close()
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// explain makes an error of a start one for people.
func (l *life) explain(err error) error {
	select {
	case <-l.run.gone:
	case <-time.After(deathTime):
		return fmt.Errorf("%w: could not be killed: %s", err, l.run)
	}
	e := l.run.ended
	l.mu.Lock()
	reason := l.reason
	l.mu.Unlock()
	switch parts := strings.Split(l.offer, "|"); {
	case e.err != nil:
		return e.err
	case reason != nil:
		return errors.New(phrase(l.says, reason.Error()))
	case errors.Is(err, ErrContract):
		return err
	case l.offer != "" && parts[0] != strconv.Itoa(goplugin.CoreProtocolVersion):
		return fmt.Errorf("%w: version %s of go-plugin's handshake, and this deputy version %d: build the plugin with deputy's SDK", ErrVersion, parts[0], goplugin.CoreProtocolVersion)
	case l.offer != "" && parts[1] != strconv.Itoa(proto.Version):
		v, _ := strconv.Atoi(parts[1])
		upgrade := "upgrade the plugin"
		if v > proto.Version {
			upgrade = "upgrade deputy on this node"
		}
		return fmt.Errorf("%w: version %d of deputy's, and this deputy version %d: %s", ErrVersion, v, proto.Version, upgrade)
	case l.offer != "" && parts[4] != string(goplugin.ProtocolGRPC):
		return fmt.Errorf("%w: %s, and deputy gRPC: build the plugin with deputy's SDK", ErrVersion, parts[4])
	case l.offer == "" && !e.cut:
		return errors.New(phrase(l.says, "ended before it said where it listens", endOf(e.state)))
	case l.offer == "":
		return errors.New(phrase(l.says, fmt.Sprintf("did not say where it listens within %s", startTime)))
	case !e.cut:
		return errors.New(phrase(l.says, "ended before it took the connection", endOf(e.state)))
	}
	return fmt.Errorf("connect: %w", err)
}

// kill has all of the process killed, and notes why. The first reason counts,
// and none when it has ended by itself.
func (l *life) kill(why error) {
	l.mu.Lock()
	if l.reason == nil && !l.run.over() {
		l.reason = why
	}
	l.mu.Unlock()
	l.run.destroy()
}

// killed returns why the process was killed, or nil if it was not.
func (l *life) killed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

// await returns true once all of the process is gone, or false after the time
// given.
func (l *life) await(d time.Duration) bool { return closed(l.run.gone, d) }

// closed returns true once c is closed, or false after the time given.
func closed(c <-chan struct{}, d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-c:
		return true
	case <-late.C:
		return false
	}
}

// death tells how the process ended that nobody has killed.
func (l *life) death() error {
	if why := l.killed(); why != nil {
		return why
	}
	if !l.await(deathTime) {
		return errors.New("the connection is lost")
	}
	if err := l.run.ended.err; err != nil {
		return err
	}
	return errors.New(phrase(l.says, endOf(l.run.ended.state)))
}

// ping returns nil if the process answers anything.
func (l *life) ping(ctx context.Context, bound time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer within %s", bound))
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(l.conn.Load()).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	return nil // whatever it says: it lives
}

// end asks the process to end, and kills it when it has not within a bound.
func (l *life) end(bound time.Duration) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), bound, fmt.Errorf("not ended within %s", bound))
	defer cancel()
	if err := l.wire.Drain(ctx, bound); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		l.says.log.Warn("plugin not drained", "cause", err)
	}
	// The answer may be lost: the process ends while it gives it.
	_ = l.conn.Load().Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	select {
	case <-l.run.gone:
	case <-ctx.Done():
		l.kill(causeOf(ctx))
	}
}

// A supervised is a life as go-plugin sees it.
type supervised struct{ *life }

var _ runner.Runner = supervised{}

func (s supervised) Start(context.Context) error {
	s.begun = true
	go func() { // until gone
		s.run.ended = s.run.live()
		_ = s.shakes.Close()
		close(s.run.gone)
	}()
	return nil
}

func (s supervised) Wait(context.Context) error {
	<-s.run.gone
	return nil
}

func (s supervised) Kill(context.Context) error {
	s.run.destroy()
	return nil
}

func (s supervised) Stdout() io.ReadCloser           { return s.shake }
func (s supervised) Stderr() io.ReadCloser           { return io.NopCloser(strings.NewReader("")) }
func (s supervised) Name() string                    { return s.run.argv[0] }
func (s supervised) ID() string                      { return s.run.argv[0] }
func (s supervised) Diagnose(context.Context) string { return "" }

// PluginToHost admits only a socket that is removed with the process, in a
// directory that nobody else can enter.
func (s supervised) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(addr) != s.dir {
		return "", "", fmt.Errorf("%w: it listens on %s %s, and a plugin listens on a unix socket in $%s", ErrContract, network, addr, goplugin.EnvUnixSocketDir)
	}
	return network, addr, nil
}

func (s supervised) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
