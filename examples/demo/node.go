package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A node is a machine of the lab: a runner, and below it deputy, its hooks and
// what they have started.
type node struct {
	lab   *lab
	index int
	name  string
	addr  string
	dir   string

	life sync.Mutex // serialises turning on and off
	cmd  *exec.Cmd  // the runner; nil while the node is off
	in   io.WriteCloser
	wire *wire
	stop context.CancelCauseFunc // ends what watches the node
	wg   sync.WaitGroup

	mu   sync.Mutex
	is   bool          // it is on
	up   bool          // deputy runs
	runs int           // how often it was started
	run  chan struct{} // closed and renewed when that changes
	say  error         // why the runner ended, once it has
}

// bootFor is how long a node may take to turn on or off.
const bootFor = 10 * time.Second

func (n *node) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"DEPUTY_CONFIG=" + filepath.Join(n.dir, "deputy.toml"),
		"DEPUTY_SERVICES=" + filepath.Join(n.dir, "services.d"),
		"DEPUTY_RUN_DIR=" + filepath.Join(n.dir, "run"),
		"DEPUTY_STATE_DIR=" + filepath.Join(n.dir, "state"),
	}
}

// on turns the node on and starts deputy.
func (n *node) on(ctx context.Context) (err error) {
	n.life.Lock()
	defer n.life.Unlock()
	if n.cmd != nil {
		return nil
	}
	cmd := exec.Command("/proc/self/exe", "node", n.name, filepath.Join(n.dir, "deputy.log"), n.lab.nodePort, n.lab.deputyFile(), "run")
	cmd.Args[0] = "demo"
	cmd.Env = n.env()
	cmd.Stderr = n.lab.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if n.lab.namespaces {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Setpgid:    true,
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		}
	}
	if n.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("turn on %s: %w", n.name, err)
	}
	n.cmd = cmd
	watch, stop := context.WithCancelCause(context.Background())
	n.stop = stop
	n.mu.Lock()
	n.is, n.say = true, nil
	n.mu.Unlock()
	ready := make(chan struct{})
	n.wg.Go(func() { n.listen(out, ready) })
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("turn on %s: %w", n.name, err), n.end())
		}
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := n.problem(); err != nil {
		return err
	}
	if n.lab.namespaces {
		if n.wire, err = plug(n.name, n.index, cmd.Process.Pid); err != nil {
			return err
		}
	}
	if n.lab.many == nil && !n.lab.moves() {
		n.wg.Go(func() { n.look(watch) })
	}
	return n.tell(cmdStart)
}

// listen hears what the runner says, until it has ended.
func (n *node) listen(out io.Reader, ready chan struct{}) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, _, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case evReady:
			close(ready)
			ready = nil
		case evStarted, evEnded:
			n.turn(word == evStarted)
		}
	}
	n.mu.Lock()
	n.say = errors.New("it ended by itself")
	n.mu.Unlock()
	n.turn(false)
	if ready != nil {
		close(ready)
	}
}

func (n *node) turn(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = up
	if up {
		n.runs++
	}
	close(n.run)
	n.run = make(chan struct{})
}

func (n *node) problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.say
}

// isOn reports whether the node is turned on.
func (n *node) isOn() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.is
}

// isUp reports whether deputy runs on the node.
func (n *node) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

// await waits until something about deputy on the node is true.
func (n *node) await(ctx context.Context, ok func(up bool, runs int) bool) error {
	for {
		n.mu.Lock()
		yes, changed := ok(n.up, n.runs), n.run
		n.mu.Unlock()
		if yes {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for deputy on %s: %w", n.name, context.Cause(ctx))
		}
	}
}

func (n *node) tell(order string) error {
	if n.in == nil {
		return fmt.Errorf("tell %s to %s: it is off", n.name, order)
	}
	if _, err := io.WriteString(n.in, order+"\n"); err != nil {
		return fmt.Errorf("tell %s to %s: %w", n.name, order, err)
	}
	return nil
}

// look looks into a node without an address until ctx ends: is the file that
// stands for it there? Where there is an address, to have it proves nothing:
// it is asked, see direct.
func (n *node) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	role := filepath.Join(n.dir, "state", n.lab.service(), "role")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sent := now()
		_, err := os.Stat(role)
		if there := err == nil; (there || errors.Is(err, os.ErrNotExist)) && ctx.Err() == nil {
			n.lab.rec.look(n.name, "shows the role", there, sent, now())
		}
	}
}

// kill ends deputy, and nothing else, by SIGKILL, and returns when it runs
// again.
func (n *node) kill(ctx context.Context) error {
	n.mu.Lock()
	before := n.runs
	n.mu.Unlock()
	if err := n.tell(cmdKill); err != nil {
		return err
	}
	return n.await(ctx, func(up bool, runs int) bool { return up && runs > before })
}

// lose takes the node away as a loss of power and of the network does.
func (n *node) lose() error {
	n.life.Lock()
	defer n.life.Unlock()
	if n.cmd == nil {
		return nil
	}
	var cut error
	if n.wire != nil {
		cut = n.wire.cut()
	}
	if err := errors.Join(cut, n.end()); err != nil {
		return fmt.Errorf("lose %s: %w", n.name, err)
	}
	// What lies in /run and the file that stands for an address go with the
	// power; what lies on disk stays.
	return errors.Join(
		os.RemoveAll(filepath.Join(n.dir, "run")),
		os.RemoveAll(filepath.Join(n.dir, "state", n.lab.service(), "role")),
	)
}

// off shuts the node down as an operator would.
func (n *node) off(ctx context.Context) error {
	n.life.Lock()
	defer n.life.Unlock()
	if n.cmd == nil {
		return nil
	}
	err := n.tell(cmdStop)
	if err == nil {
		err = n.await(ctx, func(up bool, _ int) bool { return !up })
	}
	return errors.Join(err, n.end())
}

// end kills everything on the node and returns when it is gone.
func (n *node) end() error {
	var killed error
	if n.lab.namespaces {
		killed = n.cmd.Process.Kill() // the init of its namespace: all others go with it
	}
	n.in.Close() // the end of its input tells the runner to kill all that it has
	n.stop(errors.New("the node is off"))
	late := time.AfterFunc(bootFor, func() { n.cmd.Process.Kill() })
	n.wg.Wait()
	err := n.cmd.Wait()
	if late.Stop() && n.lab.namespaces {
		err = killed // killed is how it is meant to end
	}
	if n.wire != nil {
		err = errors.Join(err, n.wire.remove())
	}
	n.cmd, n.in, n.wire = nil, nil, nil
	n.mu.Lock()
	n.is = false
	n.mu.Unlock()
	n.turn(false)
	n.lab.rec.forget(n.name)
	if err != nil {
		return fmt.Errorf("end %s: %w", n.name, err)
	}
	return nil
}

// deputyPID is the process of deputy on the node.
func (n *node) deputyPID() (int, error) {
	n.life.Lock()
	defer n.life.Unlock()
	if n.cmd == nil {
		return 0, fmt.Errorf("find deputy on %s: it is off", n.name)
	}
	return n.child(n.cmd.Process.Pid, n.lab.deputyFile())
}

// vipPID is the process of deputy's plugin vip on the node.
func (n *node) vipPID() (int, error) {
	deputy, err := n.deputyPID()
	if err != nil {
		return 0, err
	}
	return n.child(deputy, n.lab.vipFile())
}

// child finds the process that runs a program for its parent.
func (n *node) child(parent int, file string) (int, error) {
	all, err := descendants(parent)
	if err != nil {
		return 0, err
	}
	for _, pid := range all {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if s, serr := readStat(pid); err == nil && serr == nil && exe == file && s.parent == parent {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("find %s on %s: it does not run", filepath.Base(file), n.name)
}

// hasAddress reports whether the node has the service's address, or may have
// it.
func (n *node) hasAddress() bool {
	there, err := n.wire.has(serviceAddr)
	return err != nil || there
}
