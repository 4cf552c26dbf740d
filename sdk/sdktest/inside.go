package sdktest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// An inside is what a process of a plugin is to its host, inside the test's own:
// the server that Main serves, called over a connection in memory.
type inside struct {
	*wire.Client
	conn   *grpc.ClientConn
	server *grpc.Server
	end    context.CancelCauseFunc // of all that New's function has made
	dead   chan struct{}           // closed by kill: no call gets an answer
	gone   chan struct{}           // closed when no call of it runs any more
	once   sync.Once

	givenUp atomic.Bool // an act whose end nobody has waited for
}

// newInside starts serving a plugin.
func newInside(p sdk.Plugin, log *slog.Logger, now func() sdk.Instant) (*inside, error) {
	listener := bufconn.Listen(64 << 10)
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithIdleTimeout(0))
	if err != nil {
		return nil, fmt.Errorf("connect to the plugin: %w", err)
	}
	ctx, end := context.WithCancelCause(context.Background())
	i := &inside{
		Client: wire.New(conn), conn: conn, server: grpc.NewServer(grpc.WaitForHandlers(true)),
		end: end, dead: make(chan struct{}), gone: make(chan struct{}),
	}
	proto.RegisterPluginServiceServer(i.server, sdk.NewServer(ctx, p, log, now))
	go func() { // until kill
		_ = i.server.Serve(listener)
	}()
	return i, nil
}

// kill ends it as SIGKILL ends a process, as far as that can be done inside of
// one: the contexts of all its calls end, and nothing that it answers is heard.
func (i *inside) kill(cause error) {
	i.once.Do(func() {
		close(i.dead)
		i.end(cause)
		i.conn.Close()
		go func() { // ends with the last call
			defer close(i.gone)
			i.server.Stop()
		}()
	})
}

// over reports whether no call of one that was killed runs any more, within a
// time.
func (i *inside) over(within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-i.gone:
		return true
	case <-late.C:
		return false
	}
}

// A testLog writes what a plugin logs into the log of its test.
type testLog struct{ t T }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}
