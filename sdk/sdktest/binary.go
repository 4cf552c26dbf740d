package sdktest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// Binary is the plugin of a program. Its host is one of this package's own:
// nothing is shared with the supervisor but the wire.
func Binary(path string) Subject { return binary(path) }

type binary string

// lateBound is how long after its deadline an act's answer is waited for.
const lateBound = 5 * time.Second

// Open starts the program and connects to it.
func (b binary) Open(ctx context.Context) (Hosted, error) {
	path, err := filepath.Abs(string(b))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sdktest-") // short: a socket's path has at most 107 bytes (unix(7))
	if err != nil {
		return nil, fmt.Errorf("make a folder for its socket: %w", err)
	}
	h := &host{dir: dir, mark: "TMPDIR=" + dir, exited: make(chan struct{})}
	if err := h.start(ctx, path); err != nil {
		h.end()
		return nil, err
	}
	return h, nil
}

// A host hosts one process of a plugin.
type host struct {
	*wire.Client
	dir  string
	mark string // in the environment of all that it starts
	cmd  *exec.Cmd
	conn *grpc.ClientConn

	life      *os.File // closed when the host is gone
	out, err  *output
	streaming func() // ends drainStream
	reading   sync.WaitGroup
	exited    chan struct{}

	once   sync.Once
	socket string
	left   Left // once it has ended
}

// start starts the program and reads its handshake.
func (h *host) start(ctx context.Context, path string) error {
	stdin, life, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	h.life = life
	var childs [2]*os.File
	for i, o := range []**output{&h.out, &h.err} {
		if *o, childs[i], err = newOutput(); err != nil {
			return err
		}
		defer childs[i].Close()
	}
	h.cmd = &exec.Cmd{
		Path: path, Args: []string{path}, Dir: "/", Stdin: stdin, Stdout: childs[0], Stderr: childs[1], Env: h.environ(),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // so that it is ended with all it starts
	}
	if err := h.cmd.Start(); err != nil {
		h.cmd = nil
		return err
	}
	h.reading.Go(func() {
		_ = h.cmd.Wait()
		close(h.exited)
	})
	shaken := make(chan string, 1)
	h.reading.Go(func() { h.out.drain(shaken) })
	h.reading.Go(func() { h.err.drain(nil) })
	select {
	case line := <-shaken:
		return h.connect(line)
	case <-h.exited:
		return fmt.Errorf("it ended before its handshake: %s%s", h.cmd.ProcessState, h.because())
	case <-ctx.Done():
		return fmt.Errorf("no handshake came: %w%s", context.Cause(ctx), h.because())
	}
}

// because is what it printed, as the tail of a sentence.
func (h *host) because() string {
	if said := h.Said(); said != "" {
		return ": " + said
	}
	return ""
}

// environ is what a plugin gets: what it needs for its handshake, and what any
// program may expect.
func (h *host) environ() []string {
	env := []string{
		proto.CookieKey + "=" + proto.CookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=" + strconv.Itoa(proto.Version),
		"PLUGIN_UNIX_SOCKET_DIR=" + h.dir,
		h.mark,
	}
	for _, name := range []string{"PATH", "LANG", "HOME", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// connect reads a handshake, CORE|VERSION|NETWORK|ADDRESS|PROTOCOL|..., and
// connects to where it says.
func (h *host) connect(line string) error {
	f := strings.Split(line, "|")
	switch {
	case len(f) < 5 || f[0] != "1":
		return fmt.Errorf("its first line is no handshake: %q", line)
	case f[1] != strconv.Itoa(proto.Version):
		return fmt.Errorf("it speaks version %s of the protocol, not %d", f[1], proto.Version)
	case f[2] != "unix" || f[4] != "grpc":
		return fmt.Errorf("it listens by %s and speaks %s, not gRPC on a unix socket", f[2], f[4])
	case filepath.Dir(f[3]) != h.dir:
		return fmt.Errorf("its socket is %s, not in the folder that it was given, %s", f[3], h.dir)
	}
	h.socket = f[3]
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.socket)
		}),
		grpc.WithIdleTimeout(0))
	if err != nil {
		return fmt.Errorf("connect to its socket: %w", err)
	}
	h.conn, h.Client = conn, wire.New(conn)
	ctx, cancel := context.WithCancelCause(context.Background())
	h.streaming = func() { cancel(errors.New("its host is gone")) }
	h.reading.Go(func() { h.drainStream(ctx) })
	return nil
}

// drainStream reads what the plugin prints once it serves: go-plugin hands
// that on over the wire.
func (h *host) drainStream(ctx context.Context) {
	s, err := h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil || s.SendMsg(&emptypb.Empty{}) != nil || s.CloseSend() != nil {
		return
	}
	for {
		var chunk emptypb.Empty // its fields are kept as unknown ones
		if s.RecvMsg(&chunk) != nil {
			return
		}
		h.out.take(chunk.ProtoReflect().GetUnknown())
	}
}

// Do has one act done. An answer that comes much later than its deadline counts
// as none.
func (h *host) Do(ctx context.Context, t sdk.Transition, heartbeat time.Duration, heard func(string)) sdk.Result {
	ctx, cancel := context.WithTimeoutCause(ctx, t.Timeout+lateBound, errors.New("no answer came"))
	defer cancel()
	r, err := h.Client.Do(ctx, t, heartbeat, heard)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: err.Error()}
	}
	return r
}

// Ping asks for a sign of life, by gRPC's health service.
func (h *host) Ping(ctx context.Context) error {
	r, err := health.NewHealthClient(h.conn).Check(ctx, &health.HealthCheckRequest{Service: proto.ServiceName})
	switch {
	case err != nil:
		return err
	case r.Status != health.HealthCheckResponse_SERVING:
		return fmt.Errorf("it says %s", r.Status)
	}
	return nil
}

// PIDs are the process itself and those of its session.
func (h *host) PIDs() []int {
	leader := h.cmd.Process.Pid
	pids := []int{leader}
	for _, pid := range processes() {
		if pid != leader && sessionOf(pid) == leader {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Orphan leaves the plugin as the kernel does when its host is killed: its
// descriptors are closed.
func (h *host) Orphan(ctx context.Context, t sdk.Transition, after time.Duration) ([]int, error) {
	if t.Action != "" {
		h.reading.Go(func() { _, _ = h.Client.Do(ctx, t, time.Second, func(string) {}) }) // ends with the connection
	}
	time.Sleep(after)
	pid := h.cmd.Process.Pid
	h.life.Close()
	h.streaming()
	h.conn.Close()
	h.out.file.Close()
	h.err.file.Close()
	return []int{pid}, nil
}

// Kill ends the process by SIGKILL, with its session.
func (h *host) Kill(ctx context.Context) error {
	h.slay()
	var err error
	select {
	case <-h.exited:
	case <-ctx.Done():
		err = fmt.Errorf("process %d is not gone: %w", h.cmd.Process.Pid, context.Cause(ctx))
	}
	h.end()
	return err
}

// slay does nothing to what a process that has ended by itself has left.
func (h *host) slay() {
	select {
	case <-h.exited:
		return
	default:
	}
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL) // at once, before others are looked for
	for _, pid := range h.PIDs() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// closeBound is how long a plugin that is told to end is waited for.
const closeBound = endBound + time.Second

// Close has the plugin drain, tells it to end, and waits for that.
func (h *host) Close(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, closeBound)
	defer cancel()
	if err := h.Drain(bounded, endBound); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		_ = h.Kill(ctx)
		return fmt.Errorf("it did not end what ran: %w", err)
	}
	// It may end before it has answered.
	_ = h.conn.Invoke(bounded, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	select {
	case <-h.exited:
		h.end()
		return nil
	case <-bounded.Done():
		_ = h.Kill(ctx)
		return fmt.Errorf("it was not gone within %s", closeBound)
	}
}

// end frees what the host has, and looks at what is left. What still runs then
// is nobody's but what the plugin has promoted.
func (h *host) end() {
	h.once.Do(func() {
		if h.cmd != nil {
			h.slay()
			select {
			case <-h.exited:
			case <-time.After(askBound): // stuck in the kernel: it stays among what is left
				return
			}
		}
		if h.streaming != nil {
			h.streaming()
			h.conn.Close()
		}
		if h.life != nil {
			h.life.Close()
		}
		for _, o := range []*output{h.out, h.err} {
			if o != nil && h.cmd != nil {
				_ = o.file.SetReadDeadline(time.Now().Add(drainTime))
			}
		}
		h.reading.Wait()
		for _, o := range []*output{h.out, h.err} {
			if o == nil {
				continue
			}
			if !o.ended {
				h.left.Outputs = append(h.left.Outputs, holders(o.pipe)...)
			}
			o.file.Close()
		}
		if _, err := os.Lstat(h.socket); h.socket != "" && !errors.Is(err, fs.ErrNotExist) {
			h.left.Sockets = []string{h.socket}
		}
		os.RemoveAll(h.dir)
	})
}

// Left tells what there still is of a plugin that has ended.
func (h *host) Left() Left {
	left := h.left
	left.Processes = marked(h.mark)
	return left
}

// Said is what the plugin printed last.
func (h *host) Said() string {
	return strings.TrimSpace(h.err.last() + "\n" + h.out.last())
}

// Printed is how many bytes the plugin has printed.
func (h *host) Printed() int64 { return h.out.count() + h.err.count() }

// drainTime is how long the outputs of a process that has ended are read on.
const drainTime = 200 * time.Millisecond

// An output is what a plugin prints. All of it is read, the end is kept.
type output struct {
	file  *os.File
	pipe  string // as /proc names it
	ended bool   // nobody has it open any more; known once it is drained

	mu   sync.Mutex
	tail []byte
	n    int64
}

func newOutput() (*output, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	info, err := r.Stat()
	if err != nil {
		return nil, nil, err
	}
	pipe := fmt.Sprintf("pipe:[%d]", info.Sys().(*syscall.Stat_t).Ino)
	return &output{file: r, pipe: pipe}, w, nil
}

// drain reads to the end. The first line goes to first instead, where that is
// given.
func (o *output) drain(first chan<- string) {
	r := bufio.NewReaderSize(o.file, 64<<10)
	if first != nil {
		line, err := r.ReadSlice('\n')
		if err != nil {
			o.take(line)
		} else {
			first <- strings.TrimSpace(string(line))
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		o.take(buf[:n])
		if err != nil {
			o.ended = errors.Is(err, io.EOF)
			return
		}
	}
}

const maxTail = 4 << 10

func (o *output) take(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n += int64(len(b))
	o.tail = append(o.tail, b[max(0, len(b)-maxTail):]...)
	o.tail = o.tail[max(0, len(o.tail)-maxTail):]
}

func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tail)
}

func (o *output) count() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n
}
