package systemd

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// How long a process may be silent that has nothing to lose.
const (
	longSilence  = 30 * time.Second // while it runs; as WatchdogSec in the unit
	startSilence = 5 * time.Second  // while it starts or stops
)

// The bounds of the pace at which signs of life are sent: each ends a quarter of
// the time that it is good for before the next is due.
const (
	quickest = 5 * time.Millisecond
	again    = 100 * time.Millisecond // at most until what did not arrive is said again
	statuses = time.Second            // at least from one status to the next
)

// A Herald tells PID 1 that this process lives, and what it does. What it says
// of life is asked of Leash each time, so that whatever Leash needs is alive as
// well: a sign of life is never sent for an instant beyond the leash, and one
// that comes too late is not sent at all.
//
// It says nothing until Run runs, but for Arm and Trigger.
type Herald struct {
	Notifier *Notifier // nil: nobody listens, and the herald says nothing
	Watched  bool      // PID 1 watches this process
	Clock    supervisor.Clock
	Leash    func() supervisor.Leash // of the whole process
	Status   func() string           // one line for people; asked after a Poke, and once a second at most
	Log      *slog.Logger

	mu        sync.Mutex // held while something is said, so that nothing old overtakes
	ready     bool
	stopping  bool
	told      map[string]bool // what need not be said again
	triggered bool
	status    string // as PID 1 has it
	news      bool   // it may be another now
	looked    time.Time
	trouble   bool // the last message did not arrive
	exec      bool // another program takes over: nothing more is said

	poked chan struct{}
}

// NewHerald returns a herald that has said nothing yet.
func NewHerald(n *Notifier, watched bool, clock supervisor.Clock, log *slog.Logger) *Herald {
	return &Herald{
		Notifier: n, Watched: watched, Clock: clock, Log: log,
		Leash: func() supervisor.Leash { return supervisor.Leash{} }, Status: func() string { return "" },
		told: map[string]bool{}, poked: make(chan struct{}, 1),
	}
}

// Run says what is to be said until ctx ends.
func (h *Herald) Run(ctx context.Context) {
	if h.Notifier == nil {
		<-ctx.Done()
		return
	}
	for news := true; ; {
		next := h.say(news)
		timer := h.Clock.Timer(h.Clock.Now().Add(next))
		select {
		case <-timer.C():
			news = false
		case <-h.poked:
			news = true
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Poke has Run look at once: leash or status may have changed.
func (h *Herald) Poke() {
	select {
	case h.poked <- struct{}{}:
	default:
	}
}

// Arm tells PID 1 of the leash as it is now, before it returns: what a freeze in
// the next moment would leave behind is then not left for long.
func (h *Herald) Arm() {
	if h.Notifier != nil {
		h.say(false)
		h.Poke() // the next sign of life may be due sooner
	}
}

// Ready tells that the process takes part.
func (h *Herald) Ready() {
	h.mu.Lock()
	h.ready = true
	h.mu.Unlock()
	h.Poke()
}

// Stopping tells that the process is about to end.
func (h *Herald) Stopping() {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	h.Poke()
}

// Trigger has PID 1 end this process at once and demote behind it.
func (h *Herald) Trigger() {
	if h.Notifier == nil {
		return
	}
	h.mu.Lock()
	h.triggered = true
	h.mu.Unlock()
	h.say(false)
	h.Poke() // where it did not arrive it is said again
}

// Leave says the last thing about a process that ends with err.
func (h *Herald) Leave(err error) {
	if h.Notifier == nil || err == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	last := []string{"STATUS=" + oneLine(err.Error())}
	var number syscall.Errno
	if errors.As(err, &number) {
		last = append(last, "ERRNO="+strconv.Itoa(int(number)))
	}
	h.send(last...)
}

// Last says the last thing about a process that ends in order. Run has ended.
func (h *Herald) Last(status string) {
	if h.Notifier == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.send("STATUS=" + oneLine(status))
}

// Handover says that another program takes the place of this one in the same
// process, which has until the leash's end, and is silent from then on.
func (h *Herald) Handover() {
	if h.Notifier == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exec = true
	good := startSilence
	if leash := h.Leash(); leash.Until != 0 {
		good = min(good, leash.Until.Sub(h.Clock.Now()))
	}
	if good > 0 {
		h.send(h.alive(good)...)
	}
}

// say sends a sign of life, and what else there is; news tells that the status
// may be another. It returns when to be called again.
func (h *Herald) say(news bool) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.exec:
		return longSilence
	case h.triggered:
		// Nothing else is said any more.
		if h.told["WATCHDOG=trigger"] || h.send("WATCHDOG=trigger") {
			h.told["WATCHDOG=trigger"] = true
			return longSilence
		}
		return quickest
	}
	good := h.good()
	next := max(quickest, good/4)
	var all, once []string
	if good > 0 {
		all = h.alive(good)
	}
	for _, c := range []struct {
		is   bool
		what string
	}{{h.ready, "READY=1"}, {h.stopping, "STOPPING=1"}} {
		if c.is && !h.told[c.what] {
			once = append(once, c.what)
		}
	}
	all = append(all, once...)
	text, wait := h.status, time.Until(h.looked.Add(statuses))
	h.news = h.news || news
	switch {
	case h.news && wait > 0:
		next = min(next, max(wait, quickest))
	case h.news:
		h.news, h.looked = false, time.Now()
		if text = oneLine(h.Status()); text != h.status {
			all = append(all, "STATUS="+text)
		}
	}
	if len(all) == 0 {
		return next
	}
	if !h.send(all...) {
		h.news, h.looked = true, time.Time{}
		return min(next, max(quickest, min(good/8, again)))
	}
	for _, what := range once {
		h.told[what] = true
	}
	h.status = text
	return next
}

// good is for how long a sign of life is good now; nothing or less when it comes
// too late.
func (h *Herald) good() time.Duration {
	leash, good := h.Leash(), longSilence
	if !h.ready || h.stopping {
		good = startSilence
	}
	if leash.Silence > 0 {
		good = min(good, leash.Silence)
	}
	if leash.Until != 0 {
		good = min(good, leash.Until.Sub(h.Clock.Now()))
	}
	return good.Truncate(time.Microsecond)
}

// alive is a sign of life. PID 1 watches a process only between READY and its
// stop; outside of that the same time is an extension of a short timeout. A
// watchdog time of zero would end the watch, and never comes here.
func (h *Herald) alive(good time.Duration) []string {
	all := []string{"EXTEND_TIMEOUT_USEC=" + usec(good)}
	if h.Watched {
		all = append(all, "WATCHDOG_USEC="+usec(good), "WATCHDOG=1")
	}
	return all
}

// send reports whether a message has arrived.
func (h *Herald) send(all ...string) bool {
	err := h.Notifier.Send(all...)
	if err != nil && !h.trouble {
		h.Log.Warn("systemd not told", "cause", err)
	}
	h.trouble = err != nil
	return err == nil
}

// An Escalator is the force that PID 1 has: the member's supervisor.Escalator.
type Escalator struct {
	Herald *Herald
	Bus    *Bus // nil: PID 1 cannot be asked
	Unit   string
	Log    *slog.Logger
}

// Trigger has PID 1 kill this process and clean up behind it.
func (e *Escalator) Trigger(error) { e.Herald.Trigger() }

// escalateTime bounds the order to force this node down.
const escalateTime = 5 * time.Second

// Reboot has PID 1 force this node down.
func (e *Escalator) Reboot(cause error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), escalateTime, errors.New("systemd does not answer"))
	defer cancel()
	err := ErrNoBus
	if e.Bus != nil {
		err = e.Bus.Queue(ctx, e.Unit)
	}
	if err != nil {
		e.Log.Error("this node is not forced down: turn it off, the role may be held twice", "unit", e.Unit, "cause", err)
		return
	}
	e.Log.Error("this node is forced down", "unit", e.Unit, "cause", cause)
}

var _ supervisor.Escalator = (*Escalator)(nil)

// Guarded is a member's memory that tells PID 1 of a new leash before a part is
// promoted under it.
type Guarded struct {
	supervisor.Memory
	Herald *Herald
}

// Save arms the watchdog first.
func (g Guarded) Save(n supervisor.Note) error {
	g.Herald.Arm()
	return g.Memory.Save(n)
}

// SaveUntil keeps the end of the lease.
func (g Guarded) SaveUntil(i sdk.Instant) error { return g.Memory.SaveUntil(i) }
