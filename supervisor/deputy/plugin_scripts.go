package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/plugin"
)

// scripts have the plugin exec examined as any other, by its own host.
type scripts struct {
	app    *app
	host   plugin.Host
	part   supervisor.Part
	origin origin
}

// Open makes a host. Nothing runs between calls.
func (s *scripts) Open(context.Context) (sdktest.Hosted, error) {
	clock, err := boottime.New()
	if err != nil {
		return nil, err
	}
	h := &scriptHost{scripts: s, clock: clock}
	h.life, h.end = context.WithCancelCause(context.Background())
	h.host.Clock, h.host.Log = clock, slog.New(slog.NewTextHandler(&h.said, &slog.HandlerOptions{ReplaceAttr: wordsAlone}))
	return h, nil
}

// wordsAlone keeps of a line of the log what a script has said, and in which
// act.
func wordsAlone(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case "action", "line", slog.MessageKey:
		return a
	}
	return slog.Attr{}
}

// A scriptHost hosts scripts as a supervisor does.
type scriptHost struct {
	*scripts
	clock *boottime.Clock
	said  tail
	life  context.Context // of the host
	end   context.CancelCauseFunc

	mu    sync.Mutex
	p     plugin.Plugin // nil before it is configured
	calls sync.WaitGroup
}

var errHostEnded = errors.New("the host has ended")

// call begins a call of the plugin: it has the returned context, which ends with
// the host too, and says when it is done.
func (h *scriptHost) call(ctx context.Context) (plugin.Plugin, context.Context, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life.Err() != nil {
		return nil, nil, nil, context.Cause(h.life)
	}
	h.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(h.life, func() { cancel(context.Cause(h.life)) })
	return h.p, ctx, func() {
		stop()
		cancel(nil)
		h.calls.Done()
	}, nil
}

// made returns the plugin with some settings.
func (h *scriptHost) made(setup wire.Setup) (plugin.Plugin, error) {
	host, part := h.host, h.part
	host.Service, host.Node, host.StateDir = setup.Service, setup.Node, setup.StateDir
	part.Config = setup.Config
	return plugin.New(host, part)
}

func (h *scriptHost) Describe(context.Context) (wire.Description, error) {
	p, err := plugin.New(h.host, h.part)
	if err != nil {
		return wire.Description{}, err
	}
	d := p.Describe()
	return wire.Description{Name: d.Name, Capabilities: d.Capabilities, ForcedBound: d.ForcedBound}, nil
}

func (h *scriptHost) Validate(_ context.Context, setup wire.Setup) error {
	_, err := h.made(setup)
	return err
}

func (h *scriptHost) Configure(ctx context.Context, setup wire.Setup) error {
	p, err := h.made(setup)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p = p
	return p.Open(ctx)
}

func (h *scriptHost) Do(ctx context.Context, t sdk.Transition, _ time.Duration, heard func(string)) sdk.Result {
	p, ctx, done, err := h.call(ctx)
	if err != nil {
		return sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "not started: " + err.Error()}
	}
	defer done()
	return p.Do(ctx, t, heard)
}

func (h *scriptHost) Check(ctx context.Context, role sdk.Role, t sdk.Term) (sdk.Health, error) {
	p, ctx, done, err := h.call(ctx)
	if err != nil {
		return sdk.Health{}, err
	}
	defer done()
	return p.Check(ctx, role, t)
}

func (h *scriptHost) Renew(ctx context.Context, until sdk.Instant) error {
	p, ctx, done, err := h.call(ctx)
	if err != nil {
		return err
	}
	defer done()
	return p.Renew(ctx, until)
}

// Ping finds nothing that could be frozen.
func (h *scriptHost) Ping(context.Context) error { return nil }

// PIDs are none: each call has a process of its own.
func (h *scriptHost) PIDs() []int { return nil }

// Orphan has the act done by a host that can die alone: a `deputy plugin call`.
func (h *scriptHost) Orphan(ctx context.Context, t sdk.Transition, after time.Duration) ([]int, error) {
	if t.Action == "" {
		return nil, errors.ErrUnsupported
	}
	args := []string{
		"deputy", "plugin", "call", execPlugin, string(t.Action), "--node", t.Node,
		"--term", strconv.FormatUint(uint64(t.Term), 10), "--timeout", t.Timeout.String(),
	}
	for _, o := range []struct{ flag, value string }{
		{"--settings", h.origin.file}, {"--service", h.origin.service}, {"--part", h.origin.part},
	} {
		if o.value != "" {
			args = append(args, o.flag, o.value)
		}
	}
	cmd := exec.Cmd{Path: "/proc/self/exe", Args: args, Env: append(os.Environ(),
		"DEPUTY_CONFIG="+h.app.paths.config, "DEPUTY_SERVICES="+h.app.paths.services, "DEPUTY_STATE_DIR="+h.app.paths.state)}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a host: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	for {
		if group := groupUnder(cmd.Process.Pid); group != 0 {
			time.Sleep(after)
			doomed := groupOf(group)
			_ = cmd.Process.Kill()
			<-ended
			return doomed, nil
		}
		select {
		case <-ended: // it was too quick
			return nil, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the script: %w", context.Cause(ctx))
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// Kill ends what runs, by SIGKILL, and the host. Of a call that comes just then
// nothing is left either.
func (h *scriptHost) Kill(ctx context.Context) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.p != nil {
		err = h.p.Kill(ctx) // first, or what runs would be asked to end
	}
	h.end(errHostEnded)
	h.calls.Wait()
	h.clock.Close()
	return err
}

// Close does the same: nothing runs between calls.
func (h *scriptHost) Close(ctx context.Context) error { return h.Kill(ctx) }

// Left is nothing that could be told from what was promoted.
func (h *scriptHost) Left() sdktest.Left { return sdktest.Left{} }

// Said is what the scripts have said last.
func (h *scriptHost) Said() string { return h.said.String() }

// A tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

const maxTail = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	t.end = t.end[max(0, len(t.end)-maxTail):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}

// groupUnder returns the process group of a program that a process has started,
// or zero.
func groupUnder(parent int) int {
	found := 0
	eachProcess(func(pid, ppid, group int) {
		if ppid == parent && group == pid {
			found = group
		}
	})
	return found
}

// groupOf returns the processes of a group.
func groupOf(group int) (pids []int) {
	eachProcess(func(pid, _, g int) {
		if g == group {
			pids = append(pids, pid)
		}
	})
	return pids
}

// eachProcess goes through the processes that /proc shows (proc_pid_stat(5)).
func eachProcess(f func(pid, parent, group int)) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
		fields := strings.Fields(rest) // from the state on
		if len(fields) < 3 || fields[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		group, _ := strconv.Atoi(fields[2])
		f(pid, parent, group)
	}
}
