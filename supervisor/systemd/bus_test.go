package systemd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// soon is a bound for what takes milliseconds.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 20s")
		}
	}
}

func TestJobsAreAwaited(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	p.unit("a.service", func(u *fakeUnit) { u.slow = 50 * time.Millisecond })
	began := time.Now()
	if err := b.Start(soon(t), "a.service"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 50*time.Millisecond || p.active("a.service") != "active" {
		t.Errorf("returned after %s with the unit %s", took, p.active("a.service"))
	}
	if err := b.Stop(soon(t), "a.service"); err != nil || p.active("a.service") != "inactive" {
		t.Errorf("stop: %v, and the unit is %s", err, p.active("a.service"))
	}
	p.unit("a.service", func(u *fakeUnit) { u.slow = 0 })
	// One that is there already ends its job before its name is known.
	for range 50 {
		if err := b.Stop(soon(t), "a.service"); err != nil {
			t.Fatal(err)
		}
	}
}

// A job that ends between two questions about its unit does not leave a state of
// before it.
func TestUnitWhoseJobEndsMeanwhile(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	p.unit("a.service", func(u *fakeUnit) { u.active, u.job, u.jobType, u.sudden = "inactive", 7, "start", true })
	if u, err := b.Unit(soon(t), "a.service"); err != nil || u.Active != "active" || u.Job != "" {
		t.Errorf("it is %s with job %q, %v; want active with none", u.Active, u.Job, err)
	}
}

func TestManyJobsAtOnce(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			name := strconv.Itoa(i/2) + ".service" // two ask for each
			if err := b.Start(soon(t), name); err != nil {
				if job := (*JobError)(nil); !errors.As(err, &job) || job.Result != "canceled" {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	if p.accepted != 1 {
		t.Errorf("%d connections, want 1", p.accepted)
	}
}

func TestJobsThatFail(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	for _, result := range []string{"failed", "dependency", "timeout", "skipped", "canceled", "assert", "novel"} {
		p.unit(result+".service", func(u *fakeUnit) { u.result = result })
		err := b.Start(soon(t), result+".service")
		if job := (*JobError)(nil); !errors.As(err, &job) || job.Result != result || !strings.HasPrefix(err.Error(), "start "+result+".service: ") {
			t.Errorf("%s: %v", result, err)
		}
	}
	p.unit("mine.service", func(u *fakeUnit) { u.denied = true })
	if err := b.Start(soon(t), "mine.service"); !errors.Is(err, ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	p.unit("late.service", func(u *fakeUnit) { u.leaving = 2 })
	if err := b.Start(soon(t), "late.service"); err != nil {
		t.Errorf("while another job is in the way: %v, want it waited for", err)
	}
	p.unit("late.service", func(u *fakeUnit) { u.leaving, p.state = 1, "stopping" })
	if err := b.Queue(soon(t), "late.service"); !errors.Is(err, ErrGoingDown) {
		t.Errorf("while the machine goes down: %v", err)
	}
	p.unit("none.service", func(u *fakeUnit) { u.load = "not-found" })
	if err := b.Start(soon(t), "none.service"); !errors.Is(err, ErrNoUnit) {
		t.Errorf("start what is not there: %v", err)
	}
	if err := b.Stop(soon(t), "none.service"); err != nil {
		t.Errorf("stop what is not there: %v", err)
	}
}

func TestJobThatHangs(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	p.unit("a.service", func(u *fakeUnit) { u.hangs, u.active = true, "active" })
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if err := b.Stop(ctx, "a.service"); err == nil || err.Error() != "stop a.service: enough" {
		t.Errorf("got %v", err)
	}
	if n := len(b.line.waiting); n != 0 {
		t.Errorf("%d still wait for a job", n)
	}
}

// However early in its breaking a connection is seen broken, the next call is made
// over another one.
func TestConnectionIsOpenedAgain(t *testing.T) {
	for range 50 {
		p := newFakePID1(t)
		b := p.bus()
		p.unit("a.service", func(u *fakeUnit) { u.hangs, u.active = true, "active" })
		ended := make(chan error, 1)
		go func() { ended <- b.Stop(soon(t), "a.service") }()
		eventually(t, func() bool { return len(p.called()) > 0 })
		p.drop()
		if err := <-ended; !errors.Is(err, ErrNoBus) {
			t.Errorf("a job whose connection broke: %v", err)
		}
		if err := b.Start(soon(t), "b.service"); err != nil {
			t.Fatalf("after that: %v", err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	p := newFakePID1(t)
	b := p.bus()
	if _, err := b.Unit(soon(t), "a.service"); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.deaf = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Unit(ctx, "a.service"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deaf: %v", err)
	}
	// Another one that takes connections and does not even greet.
	other := p.bus()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := other.Unit(ctx, "a.service"); !errors.Is(err, ErrNoBus) {
		t.Errorf("deaf from the beginning: %v", err)
	}
	gone := &Bus{addresses: []string{"unix:path=/nonexistent"}, opening: make(chan struct{}, 1)}
	if _, err := gone.Unit(soon(t), "a.service"); !errors.Is(err, ErrNoBus) {
		t.Errorf("no socket: %v", err)
	}
	if err := gone.Close(); err != nil {
		t.Error(err)
	}
	if _, err := gone.Unit(soon(t), "a.service"); !errors.Is(err, ErrNoBus) {
		t.Errorf("closed: %v", err)
	}
}

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/deputy.slice/deputy@orders-db.service\n":                                    "deputy@orders-db.service",
		"9:name=systemd:/system.slice/x.service\n8:pids:/\n0::/system.slice/x.service\n": "x.service",
		"9:name=systemd:/\n8:pids:/\n0::/deputy.slice/deputy@db.service\n":               "deputy@db.service",
		"9:name=systemd:/system.slice/x.service\n0::/\n":                                 "x.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n":      "",
		"0::/user.slice/user-0.slice/session-1.scope\n":                                  "",
		"9:name=systemd:/\n8:pids:/\n0::/deputy.slice/deputy@x.service\n":                "deputy@x.service", // a container on a hybrid host
		"0::/\n": "", "": "", "0::/machine.slice/x.service/payload\n": "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestPathOf(t *testing.T) {
	for name, want := range map[string]string{
		"deputy-lease@orders-db.service": "deputy_2dlease_40orders_2ddb_2eservice",
		"9.service":                      "_39_2eservice",
		"a1_b.timer":                     "a1_5fb_2etimer",
	} {
		if got := string(pathOf(name)); got != "/org/freedesktop/systemd1/unit/"+want {
			t.Errorf("%s: got %s, want …/%s", name, got, want)
		}
	}
}

func TestKillRestOfGroup(t *testing.T) {
	dir := t.TempDir()
	var pids []string
	for range 2 {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strconv.Itoa(c.Process.Pid))
		go c.Wait() // it is killed, and reaped here
	}
	members := dir + "/cgroup.procs"
	if err := os.WriteFile(members, []byte(strings.Join(append(pids, strconv.Itoa(os.Getpid()), "0"), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := killRest(soon(t), members)
	if n != 2 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
	// Not the group of that unit: nothing is touched.
	if n, err := KillRest(soon(t), "deputy@nothing.service"); n != 0 || err != nil {
		t.Errorf("of a stranger: killed %d, %v", n, err)
	}
}
