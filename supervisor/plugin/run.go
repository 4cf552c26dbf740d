package plugin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of an ending.
const (
	graceTime = time.Second // between SIGTERM and SIGKILL
	deathTime = time.Second // after SIGKILL, for the processes to be gone
)

// A kind is what a run is for.
type kind int

// The kinds of runs.
const (
	checking kind = iota // only looks
	acting               // changes something
	serving              // lives on, and is asked for both
	telling              // does something outside of the role, and leaves nothing
)

// A program is what a run runs.
type program struct {
	kind kind
	argv []string
	env  []string
	user string // whom it runs as; empty: as the supervisor does
	in   []byte // its standard input, unless it lives on
	says *transcript
	out  func(line []byte) // takes the standard output in place of says
}

// An ending is how a run has ended.
type ending struct {
	err   error            // it was not started
	cut   bool             // it was told to end
	state *os.ProcessState // of the program itself, if it was started
}

// A run is one program from before its start until all of it is gone, in a
// session of its own. It has one goroutine, which alone signals and reaps it;
// that one may wait for ever in the kernel, so nobody waits for it but with a
// bound.
type run struct {
	program
	uid   int
	gone  chan struct{} // closed when nothing of it is left
	ended ending        // how, from then on

	stop, kill         chan struct{} // closed to have it ended, with and without grace
	stopOnce, killOnce sync.Once

	mu     sync.Mutex
	pid    int
	remain []int // what SIGKILL has not ended so far
}

func newRun(p program, uid int) *run {
	return &run{
		program: p, uid: uid,
		gone: make(chan struct{}),
		stop: make(chan struct{}), kill: make(chan struct{}),
	}
}

// finish asks the run to end itself: SIGTERM, and SIGKILL after graceTime.
func (r *run) finish() { r.stopOnce.Do(func() { close(r.stop) }) }

// destroy has the run killed.
func (r *run) destroy() { r.killOnce.Do(func() { close(r.kill) }) }

// doomed reports whether the run is killed, or about to be.
func (r *run) doomed() bool {
	select {
	case <-r.kill:
		return true
	default:
		return false
	}
}

// over reports whether nothing of the run is left.
func (r *run) over() bool {
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// number is the process's, or zero before its start.
func (r *run) number() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pid
}

// String names the run and, while SIGKILL does not end them, its processes.
func (r *run) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pid == 0 {
		return r.argv[0] + ", not started yet"
	}
	pids := r.remain
	if len(pids) == 0 {
		pids = []int{r.pid}
	}
	var text []string
	for _, pid := range pids {
		text = append(text, strconv.Itoa(pid))
	}
	return fmt.Sprintf("%s, pid %s", r.argv[0], strings.Join(text, ", "))
}

// live runs the program to the end of all that has to end with it.
func (r *run) live() ending {
	if err := trusted(r.argv[0], r.uid); err != nil {
		return ending{err: err}
	}
	p, err := r.open()
	if err != nil {
		return ending{err: err}
	}
	defer p.close()
	cmd := exec.Cmd{
		Path: r.argv[0], Args: r.argv, Env: r.env, Dir: "/",
		Stdout: p.childs[1], Stderr: p.childs[2], ExtraFiles: p.childs[3:],
		// A session holds all that the program starts, whatever process groups
		// that makes (timeout(1) does), unless it begins another session.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if p.childs[0] != nil {
		cmd.Stdin = p.childs[0]
	}
	if r.user != "" {
		cred, home, err := become(r.user)
		if err != nil {
			return ending{err: err}
		}
		cmd.SysProcAttr.Credential = cred
		cmd.Env = append(cmd.Env, "HOME="+home)
	}
	if r.doomed() {
		return ending{err: ErrKilled}
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.ENOEXEC) {
			err = fmt.Errorf("%w: the first line of a script names its interpreter, as in #!/bin/sh", err)
		}
		return ending{err: err}
	}
	r.mu.Lock()
	r.pid = cmd.Process.Pid
	r.mu.Unlock()
	if p.life != nil {
		if err := p.life.arm(r.pid); err != nil {
			r.says.log.Warn("plugin could outlive the supervisor", "cause", err)
		}
	}
	p.begin(r.program)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitEnd(r.pid)
	}()
	e := ending{cut: r.await(ended)}
	// Until it is reaped, the program's number and its session's stay its own.
	switch {
	case e.cut, r.kind == serving, r.kind == telling:
		r.slay(ended)
	case r.kind == checking: // nothing of a check stays
		unix.Kill(-r.pid, unix.SIGKILL)
	}
	p.finish()
	cmd.Wait()
	e.state = cmd.ProcessState
	switch {
	case r.kind != acting, e.cut:
	case outcomeOf(e.state).Outcome.OK(): // what it left running may be what it promoted
		if err := p.life.disarm(); err != nil {
			r.says.log.Warn("what the plugin left running was killed", "cause", err) // by a line that is closed while armed
		}
		if p.outlets[0].held || p.outlets[1].held {
			r.says.log.Warn("plugin left its outputs open", "cause", "a process that it started still has them; redirect them: nobody reads them now, and writing to them fails")
		}
	default: // what it left running may still be at it
		r.slay(ended)
	}
	return e
}

// await returns when the program has ended by itself, or with true when it was
// told to and either did or is to be killed.
func (r *run) await(ended <-chan struct{}) (cut bool) {
	select {
	case <-ended:
		return false
	case <-r.kill:
		return true
	case <-r.stop:
	}
	unix.Kill(-r.pid, unix.SIGTERM)
	grace := time.NewTimer(graceTime)
	defer grace.Stop()
	select {
	case <-ended:
	case <-r.kill:
	case <-grace.C:
	}
	return true
}

// slay kills the program with all its family, and returns when they are gone.
// Once the program is reaped, its number is signalled only while somebody of
// its session lives, who keeps the number from being given to another.
func (r *run) slay(ended <-chan struct{}) {
	leader := true
	select {
	case <-ended:
		ended, leader = nil, false
	default:
		unix.Kill(-r.pid, unix.SIGSTOP) // so that it starts nothing more while we look
	}
	others := family(r.pid)
	for wait := time.Millisecond; leader || len(others) > 0; wait = min(2*wait, time.Second) {
		unix.Kill(-r.pid, unix.SIGKILL)
		for _, o := range others {
			o.kill()
		}
		select {
		case <-ended:
			ended, leader = nil, false
		case <-time.After(wait):
		}
		// A relative whose parents are dead is found no more, yet may live.
		found := family(r.pid)
		for _, o := range others {
			if !slices.ContainsFunc(found, o.same) && o.lives() {
				found = append(found, o)
			}
		}
		others = found
		r.remains(leader, others)
	}
}

func (r *run) remains(leader bool, others []relative) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remain = r.remain[:0]
	if leader {
		r.remain = append(r.remain, r.pid)
	}
	for _, o := range others {
		r.remain = append(r.remain, o.pid)
	}
}

// awaitEnd returns when a child has ended, and leaves it to be reaped.
func awaitEnd(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return
		}
	}
}

// pipes are a run's ends of what it shares with its program.
type pipes struct {
	childs  []*os.File // the program's ends, by descriptor
	outlets []*outlet  // from descriptor 1 on
	in      *os.File
	life    *lifeline
	reading sync.WaitGroup
}

func (r *run) open() (*pipes, error) {
	p := &pipes{childs: []*os.File{nil}}
	if r.kind != checking {
		var err error
		if p.childs[0], p.in, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("open pipe: %w", err)
		}
	}
	outlets := 2
	if r.kind == acting {
		outlets = 3
	}
	for range outlets {
		o, w, err := newOutlet()
		if err != nil {
			p.close()
			return nil, err
		}
		p.outlets, p.childs = append(p.outlets, o), append(p.childs, w)
	}
	if r.kind == acting || r.kind == telling {
		var err error
		if p.life, err = newLifeline(); err != nil {
			p.close()
			return nil, err
		}
		p.childs = append(p.childs, p.life.read)
	}
	return p, nil
}

// begin writes the program's input and reads its outputs, until finish. The
// input of one that lives on stays open until then: its end says that the
// supervisor is gone.
func (p *pipes) begin(of program) {
	for _, f := range p.childs {
		if f != nil && (p.life == nil || f != p.life.read) {
			f.Close()
		}
	}
	if of.kind == acting || of.kind == telling {
		p.reading.Go(func() {
			defer p.in.Close()
			_, _ = p.in.Write(of.in) // whoever does not read it does not want it
		})
	}
	out := of.out
	if out == nil {
		out = of.says.out
	}
	for i, each := range []func([]byte){out, of.says.err, of.says.step}[:len(p.outlets)] {
		p.reading.Go(func() { lines(p.outlets[i], of.says.room(), each) })
	}
}

// finish takes in what the program has written, now that it has ended.
func (p *pipes) finish() {
	for _, o := range p.outlets {
		o.finish()
	}
	if p.in != nil {
		p.in.Close()
	}
	p.reading.Wait()
}

func (p *pipes) close() {
	for _, f := range p.childs {
		if f != nil {
			f.Close()
		}
	}
	for _, o := range p.outlets {
		o.f.Close()
	}
	if p.in != nil {
		p.in.Close()
	}
	if p.life != nil {
		p.life.close()
	}
}
