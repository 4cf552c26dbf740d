package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// TestMain makes this binary the plugin that a test of a process asks for.
func TestMain(m *testing.M) {
	switch os.Getenv("SDK_TEST_PLUGIN") {
	case "":
		os.Exit(m.Run())
	case "wrong":
		sdk.New("wrong", func(context.Context, struct{ Name string }, sdk.Host) (*part, error) { return nil, nil })
	case "test":
		sdk.Main(sdk.New("test", newProcessPart))
	}
}

// newProcessPart is a part whose promote prints a lot and then waits to be told
// to end, and tidies up for as many milliseconds as its settings say.
func newProcessPart(_ context.Context, c settings, h sdk.Host) (*part, error) {
	return &part{
		promote: func(ctx context.Context, _ *sdk.Transition) error {
			fmt.Println("printed to the standard output")
			fmt.Fprintln(os.Stderr, "printed to the standard error")
			_ = exec.Command("sh", "-c", "echo printed by a child >&2").Run()
			cmd := exec.Command("sh", "-c", "echo printed by a child")
			cmd.Stdout = os.Stdout
			_ = cmd.Run()
			h.Log.Warn("promoting", "count", c.Count, "file", c.Name)
			sdk.Progress(ctx, 0, "waiting")
			<-ctx.Done()
			for range c.Count { // a line to the log each time, though nobody may read it
				h.Log.Info("tidying")
				time.Sleep(time.Millisecond)
			}
			return os.WriteFile(c.Name, []byte("tidied"), 0o600)
		},
	}, nil
}

// A process is a plugin that runs as one.
type process struct {
	*wire.Client
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	life   io.Closer
	socket string
	said   chan string // all of its standard error, once that is closed
	stderr io.Closer
	rest   chan string // of its standard output, after the handshake
	exited chan error
}

func launch(t *testing.T, name string, env ...string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "sdk") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &process{said: make(chan string, 1), rest: make(chan string, 1), exited: make(chan error, 1)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), append([]string{
		"SDK_TEST_PLUGIN=" + name, proto.CookieKey + "=" + proto.CookieValue, "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR=" + dir,
		"GORACE=atexit_sleep_ms=0", // else the race detector makes every end a second late
	}, env...)...)
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.life, p.stderr, p.cmd.Stdout, p.cmd.Stderr = stdin, errR, outW, errW
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outW.Close()
	errW.Close()
	var reading sync.WaitGroup
	reading.Go(func() { p.exited <- p.cmd.Wait() })
	reading.Go(func() {
		text, _ := io.ReadAll(errR)
		p.said <- string(text)
	})
	t.Cleanup(func() {
		if p.conn != nil {
			p.conn.Close()
		}
		_ = p.cmd.Process.Kill()
		reading.Wait()
		outR.Close()
		errR.Close()
	})
	out := bufio.NewReader(outR)
	line, _ := out.ReadString('\n')
	reading.Go(func() {
		text, _ := io.ReadAll(out)
		p.rest <- string(text)
	})
	if line == "" {
		return p
	}
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) != 6 || strings.Join(fields[:3], "|") != "1|1|unix" || filepath.Dir(fields[3]) != dir || fields[4] != "grpc" || fields[5] != "" {
		t.Fatalf("the handshake is %q", line)
	}
	p.socket = fields[3]
	if p.conn, err = grpc.NewClient("unix:"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	p.Client = wire.New(p.conn)
	return p
}

// promoting configures a process and returns once its promote waits to be told
// to end.
func (p *process) promoting(t *testing.T, file string, millis int) (result <-chan string) {
	t.Helper()
	setup := wire.Setup{Service: "s", Node: "n", Part: "p", Config: map[string]any{"name": file, "count": millis}}
	if err := p.Configure(t.Context(), setup); err != nil {
		t.Fatal(err)
	}
	ended, waits := make(chan string, 1), make(chan struct{}, 1)
	go func() { // ends with the connection
		r, err := p.Do(t.Context(), sdk.Transition{Action: sdk.Promote, Timeout: time.Minute}, time.Second, func(said string) {
			if said == "0% waiting" {
				waits <- struct{}{}
			}
		})
		ended <- fmt.Sprint(r.Outcome, err)
	}()
	select {
	case <-waits:
	case r := <-ended:
		t.Fatalf("promote ended: %s", r)
	}
	return ended
}

// gone waits for the process to end and returns how long that took.
func (p *process) gone(t *testing.T) (code int, after time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("the process lives")
	}
	if _, err := os.Lstat(p.socket); p.socket != "" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
	return p.cmd.ProcessState.ExitCode(), time.Since(began)
}

// Whatever is printed, the host reads one line, the handshake. The rest comes
// to the log, with the levels and attributes of what was logged.
func TestWhatAPluginPrints(t *testing.T) {
	t.Parallel()
	p := launch(t, "test")
	promoted := p.promoting(t, filepath.Join(t.TempDir(), "file"), 1)
	if err := p.Drain(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if r := <-promoted; r != "done<nil>" {
		t.Errorf("promote: %s", r)
	}
	_ = p.conn.Invoke(t.Context(), "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if code, _ := p.gone(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if rest := <-p.rest; rest != "" {
		t.Errorf("after the handshake the standard output has %q", rest)
	}
	said := <-p.said
	for _, want := range []string{"printed to the standard output\n", "printed to the standard error\n", "printed by a child\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("the log lacks %q:\n%s", want, said)
		}
	}
	for line := range strings.Lines(said) {
		var record struct {
			Level, Msg, Time, File string
			Count                  int
		}
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "promoting" {
			if _, err := time.Parse(time.RFC3339Nano, record.Time); err != nil || record.Level != "WARN" || record.Count != 1 {
				t.Errorf("logged as %s", line)
			}
			return
		}
	}
	t.Errorf("nothing was logged:\n%s", said)
}

// The host decides when its plugins end, not who signals them all.
func TestSignalsDoNotEndAPlugin(t *testing.T) {
	t.Parallel()
	p := launch(t, "test")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE} {
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Describe(t.Context()); err != nil {
			t.Errorf("after %s: %v", s, err)
		}
	}
}

// When the host is gone, an act has half a second to tidy up, and after a
// second there is no process and no socket, whatever it does.
func TestHostIsGone(t *testing.T) {
	for _, test := range []struct {
		name   string
		millis int // to tidy up; negative: no act runs
		tidied bool
	}{
		{"idle", -1, false},
		{"an act that tidies up", 20, true},
		{"an act that is deaf", 60_000, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, "test")
			file := filepath.Join(t.TempDir(), "file")
			if test.millis >= 0 {
				p.promoting(t, file, test.millis)
			}
			p.stderr.Close() // as the kernel closes all that the host has
			p.conn.Close()
			p.life.Close()
			if code, after := p.gone(t); code != 0 || after > 2*time.Second {
				t.Errorf("exit code %d after %s", code, after)
			} else {
				t.Logf("gone after %s", after)
			}
			if text, _ := os.ReadFile(file); (string(text) == "tidied") != test.tidied {
				t.Errorf("it has written %q", text)
			}
		})
	}
}

// Why a plugin does not start is in the log.
func TestStartsThatFail(t *testing.T) {
	t.Parallel()
	p := launch(t, "wrong")
	if code, _ := p.gone(t); code != 2 {
		t.Errorf("exit code %d of a panic", code)
	}
	if said := <-p.said; !strings.Contains(said, "panic: plugin wrong: settings: field struct { Name string }.Name: needs a tag toml with its key") {
		t.Errorf("the log of a panic is %s", said)
	}
	p = launch(t, "test", "PLUGIN_UNIX_SOCKET_DIR=/nonexistent")
	if code, _ := p.gone(t); code != 1 {
		t.Errorf("exit code %d without a place for its socket", code)
	}
	if said := <-p.said; !bytes.Contains([]byte(said), []byte(`"level":"WARN","msg":"go-plugin says","cause":"[ERROR] plugin init error`)) {
		t.Errorf("the log is %s", said)
	}
}
