// Broken is a plugin that breaks one rule of the contract: the one that the
// name of its program says, deputy-plugin-RULE. As deputy-plugin-good it keeps
// them all.
//
// On the primary it keeps a file that holds the instant until which it counts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

type config struct {
	File string `toml:"file" doc:"the file that is there on the primary" required:"true"`
}

// A part is the plugin's.
type part struct {
	file string
	rule string // that is broken

	mu      sync.Mutex
	last    sdk.Action
	asked   map[string]bool
	printed int
	checks  atomic.Int32
	checked atomic.Bool // since it was last promoted
	leaked  [][]byte
}

// slowly is how long an act takes that has to be met in its middle, also on a
// busy machine.
const slowly = 300 * time.Millisecond

func rule() string {
	_, name, _ := strings.Cut(filepath.Base(os.Args[0]), "deputy-plugin-")
	return name
}

func newPart(_ context.Context, c config, _ sdk.Host) (*part, error) {
	p := &part{file: c.File, rule: rule(), asked: map[string]bool{}}
	switch p.rule {
	case "ends-on-sigterm":
		signal.Reset()
	case "leaves-a-child":
		cmd := exec.Command("sleep", "20")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return p, cmd.Start()
	}
	return p, nil
}

// Close is called when other settings are in force, or the plugin drains.
func (p *part) Close() error {
	if p.rule == "takes-it-along" {
		os.Remove(p.file)
	}
	return nil
}

// Promote takes its time, and makes the file in the middle of it.
func (p *part) Promote(ctx context.Context, t *sdk.Transition) error {
	p.mu.Lock()
	p.last = sdk.Promote
	again := p.asked[t.ID]
	p.asked[t.ID] = true
	p.mu.Unlock()
	already := p.there()
	switch p.rule {
	case "never":
		return sdk.Refuse(errors.New("it is not to be"))
	case "never-again":
		if already {
			return errors.New("it is there")
		}
	case "never-already":
		already = false
	case "once-an-id":
		if again {
			return errors.New("that was asked before")
		}
	case "too-early":
		go func() {
			time.Sleep(200 * time.Millisecond)
			_ = p.write(t.LeaseUntil)
		}()
		return nil
	case "ignores-cancel", "ignores-demote", "ignores-deadline":
		if !already {
			return p.goOn(ctx, t)
		}
	case "claims-unchanged":
		if err := p.write(t.LeaseUntil); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return sdk.Unchanged(err)
		}
		if !already {
			return nil
		}
	case "after-the-proof":
		if already {
			return sdk.ErrAlready
		}
		done := make(chan error, 1)
		go func() {
			time.Sleep(slowly)
			done <- p.write(t.LeaseUntil)
		}()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case "prints":
		fmt.Println(strings.Repeat("much to say ", 100_000))
		fmt.Fprintln(os.Stderr, strings.Repeat("much to tell ", 100_000))
		syscall.Write(1, []byte(strings.Repeat("raw ", 100_000)+"\n"))
	case "bursts":
		fmt.Println(strings.Repeat("much to say ", 50_000))
		if !already && p.checked.Swap(false) {
			p.printed++
		}
		if p.printed > 1 {
			os.Exit(3)
		}
	case "stays-half-promoted":
		if err := os.WriteFile(p.file+".half", nil, 0o644); err != nil {
			return err
		}
		defer os.Remove(p.file + ".half")
		if err := pause(ctx, slowly); err != nil {
			return err
		}
	case "leaves-a-worker":
		if !already {
			if err := p.worker(ctx); err != nil {
				return err
			}
		}
	case "keeps-descriptors":
		if !already {
			if err := p.child(); err != nil {
				return err
			}
		}
	}
	if already {
		return fmt.Errorf("%s is there: %w", p.file, sdk.ErrAlready)
	}
	if err := pause(ctx, 20*time.Millisecond); err != nil {
		return err
	}
	until := t.LeaseUntil
	if p.rule == "beyond-the-lease" {
		until = until.Add(10 * time.Second)
	}
	if err := p.write(until); err != nil {
		return err
	}
	return pause(ctx, 20*time.Millisecond)
}

// Demote removes the file.
func (p *part) Demote(ctx context.Context, t *sdk.Transition) error {
	p.mu.Lock()
	last := p.last
	p.last = sdk.Demote
	p.mu.Unlock()
	switch p.rule {
	case "only-its-own":
		if last == "" {
			return errors.New("this process promoted nothing")
		}
	case "demotes-once":
		if last == sdk.Demote {
			return errors.New("it is demoted")
		}
	case "demotes-early":
		if p.there() {
			go func() {
				time.Sleep(200 * time.Millisecond)
				_ = os.Remove(p.file)
			}()
			return nil
		}
	case "stays-half-promoted", "stays-half-demoted":
		if _, err := os.Stat(p.file + ".half"); err == nil {
			return errors.New("another process is at it")
		}
		if p.rule == "stays-half-promoted" {
			break
		}
		if err := os.WriteFile(p.file+".half", nil, 0o644); err != nil {
			return err
		}
		defer os.Remove(p.file + ".half")
		if t.Mode == sdk.Planned {
			if err := pause(ctx, slowly); err != nil {
				return err
			}
		}
	case "slow-force":
		if t.Mode == sdk.Forced {
			time.Sleep(200 * time.Millisecond)
		}
	case "keeps-descriptors":
		if b, err := os.ReadFile(p.file + ".pid"); err == nil {
			if pid, _ := strconv.Atoi(string(b)); pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			os.Remove(p.file + ".pid")
		}
	}
	if err := os.Remove(p.file); errors.Is(err, fs.ErrNotExist) {
		return sdk.ErrAlready
	} else if err != nil {
		return err
	}
	if t.Mode == sdk.Planned {
		return pause(ctx, 30*time.Millisecond)
	}
	return nil
}

// Renew makes the file count for longer.
func (p *part) Renew(_ context.Context, until sdk.Instant) error {
	switch {
	case p.rule == "renews-anything":
		return p.write(until)
	case p.rule == "renews-nothing":
		return nil
	case !p.there() && p.rule == "renews-only-what-is-there":
		return errors.New("there is nothing to renew")
	case !p.there():
		return nil
	case p.rule == "beyond-the-lease":
		until = until.Add(10 * time.Second)
	}
	return p.write(until)
}

// Follow has another file name the primary.
func (p *part) Follow(_ context.Context, t *sdk.Transition) error {
	p.mu.Lock()
	again := p.asked["follow"]
	p.asked["follow"] = true
	p.mu.Unlock()
	switch {
	case p.rule == "follows-by-promoting":
		return p.write(t.LeaseUntil)
	case p.rule == "follows-once" && again:
		return errors.New("it follows already")
	}
	return os.WriteFile(p.file+".follows", []byte(t.Primary.Address), 0o644)
}

// Rank compares numbers.
func (p *part) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	m, err := strconv.Atoi(mine)
	if err != nil {
		return nil, err
	}
	orders := map[string]sdk.Order{}
	for node, other := range others {
		o, err := strconv.Atoi(other)
		switch {
		case err != nil && p.rule != "ranks-anything":
		case m > o, p.rule == "ranks-itself-ahead":
			orders[node] = sdk.Ahead
		case m == o:
			orders[node] = sdk.Equal
		default:
			orders[node] = sdk.Behind
		}
	}
	return orders, nil
}

// Check looks whether the file is there.
func (p *part) Check(context.Context, sdk.Role) (sdk.Health, error) {
	n := p.checks.Add(1)
	defer p.checks.Add(-1)
	p.checked.Store(true)
	switch p.rule {
	case "checks-with-a-hammer":
		os.Remove(p.file)
	case "checks-in-a-queue":
		time.Sleep(10 * time.Millisecond)
		if n > 1 {
			return sdk.Health{}, errors.New("another check runs")
		}
	case "leaks-memory":
		b := make([]byte, 32<<10)
		for i := range b {
			b[i] = 1
		}
		p.mu.Lock()
		p.leaked = append(p.leaked, b)
		p.mu.Unlock()
	case "leaks-descriptors":
		_, _ = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	case "leaks-threads":
		p.mu.Lock()
		few := len(p.leaked) < 1500
		if p.leaked = append(p.leaked, nil); len(p.leaked)%50 != 0 {
			few = false
		}
		p.mu.Unlock()
		if few {
			go func() {
				runtime.LockOSThread()
				time.Sleep(time.Minute)
			}()
		}
	}
	return sdk.Health{Fit: true, Position: "7"}, nil
}

// checks can do nothing else.
type checks struct{ p *part }

func (c checks) Check(ctx context.Context, r sdk.Role) (sdk.Health, error) { return c.p.Check(ctx, r) }

// fences can do nothing else, for one node.
type fences struct{ p *part }

func (f fences) Fence(_ context.Context, victim sdk.Peer, t *sdk.Transition) error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	again := f.p.asked[victim.Node]
	f.p.asked[victim.Node] = true
	switch {
	case f.p.rule == "fences-once" && again:
		return errors.New("it is down")
	case f.p.rule == "fences-anybody":
	case victim.Node != "victim":
		return sdk.Refuse(fmt.Errorf("no power over %s", victim.Node))
	}
	return nil
}

func (p *part) there() bool {
	_, err := os.Stat(p.file)
	return err == nil
}

// write replaces the file, so that nobody sees half of it.
func (p *part) write(until sdk.Instant) error {
	next := fmt.Sprintf("%s.%d", p.file, os.Getpid())
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := os.WriteFile(next, []byte(strconv.FormatInt(int64(until), 10)), 0o644); err != nil {
		return err
	}
	return os.Rename(next, p.file)
}

// goOn promotes as ever, but goes on for long when it is told to end in the way
// that the rule says.
func (p *part) goOn(ctx context.Context, t *sdk.Transition) error {
	err := pause(ctx, slowly)
	why := "ignores-cancel"
	switch {
	case err == nil:
		return p.write(t.LeaseUntil)
	case errors.Is(err, sdk.ErrSuperseded):
		why = "ignores-demote"
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		why = "ignores-deadline"
	case errors.Is(err, sdk.ErrDrained):
		return err
	}
	if p.rule != why {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // more than a second, and less than a busy machine is given
	return p.write(t.LeaseUntil)
}

// worker has a program at work in the middle of a promote, and does not end it
// when the promote is cut short.
func (p *part) worker(ctx context.Context) error {
	cmd := exec.Command("sleep", "20")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := pause(ctx, slowly); err != nil {
		return err
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil
}

// child starts a program that has the plugin's own outputs, and lives on.
func (p *part) child() error {
	cmd := exec.Command("sleep", "20")
	cmd.Stdout, cmd.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return os.WriteFile(p.file+".pid", []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func main() {
	version := "1"
	if strings.HasPrefix(rule(), "no-sdk") {
		bare()
		return
	}
	switch rule() {
	case "prints-first":
		fmt.Println("hello")
	case "socket-elsewhere":
		os.Setenv("PLUGIN_UNIX_SOCKET_DIR", filepath.Dir(os.Args[0]))
	case "new-each-time":
		version = strconv.Itoa(os.Getpid())
	case "serves-elsewhere": // and not where its host thinks
		if os.Getenv("TZ") != "elsewhere" {
			os.Setenv("TZ", "elsewhere")
			cmd := exec.Command("/proc/self/exe")
			cmd.Args[0] = os.Args[0]
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			_ = cmd.Run()
			return
		}
	case "only-checks":
		sdk.Main(sdk.New("checks", func(ctx context.Context, c config, h sdk.Host) (checks, error) {
			p, err := newPart(ctx, c, h)
			return checks{p}, err
		}))
	case "only-fences", "fences-once", "fences-anybody":
		sdk.Main(sdk.New("fences", func(ctx context.Context, c config, h sdk.Host) (fences, error) {
			p, err := newPart(ctx, c, h)
			return fences{p}, err
		}))
	case "tidies-when-asked":
		_ = os.Remove(filepath.Join(filepath.Dir(os.Args[0]), "primary"))
	}
	sdk.Main(sdk.New("broken", newPart, sdk.Version(version), sdk.ForcedBound(100*time.Millisecond)))
}
