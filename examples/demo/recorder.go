package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// An instant is CLOCK_BOOTTIME, the same for all processes here.
type instant = time.Duration

func now() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock exists since Linux 2.6.39
	}
	return instant(ts.Nano())
}

const (
	probeEvery = 2 * time.Millisecond
	lookEvery  = 4 * time.Millisecond
	// together is how far apart two proofs may be that the same thing went on.
	together = 25 * time.Millisecond
	// noticeable is the shortest pause between two answers that is noted even
	// when no question went unanswered.
	noticeable = 10 * time.Millisecond
	// bucket is the width of a cell in the picture of who answered when.
	bucket = 500 * time.Millisecond
)

// A span is a time during which a node is proven to have acted: it began at
// start at the latest and ended at end at the earliest.
type span struct {
	node, what string
	start, end instant
}

// An incarnation is one run of a parser.
type incarnation struct {
	node string
	term uint64
	pid  int
}

// A gap is a time between two answers of the service.
type gap struct {
	from, to      instant
	before, after incarnation
	lost          uint64 // questions without an answer
}

// isOutage reports whether nobody answered, rather than that whoever asked or
// answered was held up.
func (g gap) isOutage() bool { return g.lost > 0 || g.before != g.after }

// A recorder notes who acted when, from outside.
type recorder struct {
	conn    *net.UDPConn
	targets []*net.UDPAddr
	service string // the address whose answers count; "" for any

	mu      sync.Mutex
	seq     uint64
	sent    [1 << 14]instant // by seq; older ones are overwritten
	open    map[string]*span // by node and what
	spans   []*span
	gaps    []gap
	last    instant // of the newest answer of the service; zero before the first
	lastSeq uint64
	who     incarnation
	answers uint64
	pauses  []pause // longer than usual between two probes
	prev    instant
	cells   map[string]map[int64]bool
	present map[string]bool // what was seen at the last look at each node
}

// A pause is a time in which the recorder itself was held up.
type pause struct {
	at  instant
	dur time.Duration
}

// newRecorder opens the recorder's socket. Each target is asked; service is
// the one that counts as the service's answer.
func newRecorder(targets []string, service string, port string) (*recorder, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, fmt.Errorf("open the recorder's socket: %w", err)
	}
	r := &recorder{
		conn: conn, service: service,
		open: make(map[string]*span), cells: make(map[string]map[int64]bool), present: make(map[string]bool),
	}
	for _, t := range targets {
		addr, err := net.ResolveUDPAddr("udp4", net.JoinHostPort(t, port))
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		r.targets = append(r.targets, addr)
	}
	return r, conn.SetReadBuffer(4 << 20)
}

// run asks and listens until ctx ends.
func (r *recorder) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return r.conn.Close()
	})
	g.Go(func() error { return r.ask(ctx) })
	g.Go(func() error { return r.listen(ctx) })
	return g.Wait()
}

func (r *recorder) ask(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.mu.Lock()
		r.seq++
		seq, at := r.seq, now()
		r.sent[seq%uint64(len(r.sent))] = at
		if d := at - r.prev; r.prev != 0 && d > 2*probeEvery {
			r.pauses = append(r.pauses, pause{at, d})
		}
		r.prev = at
		r.mu.Unlock()
		question := strconv.AppendUint(nil, seq, 10)
		for _, t := range r.targets {
			_, _ = r.conn.WriteToUDP(question, t) // nobody there, no route: that is what is measured
		}
	}
}

func (r *recorder) listen(ctx context.Context) error {
	buf := make([]byte, 512)
	for {
		n, from, err := r.conn.ReadFromUDP(buf)
		at := now()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen for answers: %w", err)
		}
		var a struct {
			Seq  uint64 `json:"seq"`
			Node string `json:"node"`
			Term uint64 `json:"term"`
			PID  int    `json:"pid"`
		}
		if err := json.Unmarshal(buf[:n], &a); err != nil {
			return fmt.Errorf("read an answer from %s: %w", from, err)
		}
		r.answer(from.IP.String(), a.Seq, incarnation{a.Node, a.Term, a.PID}, at)
	}
}

func (r *recorder) answer(from string, seq uint64, who incarnation, at instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq+uint64(len(r.sent)) <= r.seq || seq > r.seq {
		return // nobody knows any more when it was asked
	}
	sent := r.sent[seq%uint64(len(r.sent))]
	atService := from == r.service
	what := "its parser answers"
	if atService {
		what = "the address answers"
	}
	r.proof(who.node, what, sent, at)
	if r.service != "" && !atService {
		return
	}
	if seq < r.lastSeq {
		return // overtaken on its way
	}
	lost := uint64(0)
	if seq > r.lastSeq {
		lost = seq - r.lastSeq - 1
	}
	if r.last != 0 {
		g := gap{from: r.last, to: max(at, r.last), before: r.who, after: who, lost: lost}
		if g.isOutage() || g.to-g.from > noticeable {
			r.gaps = append(r.gaps, g)
		}
	}
	r.last, r.lastSeq, r.who = at, seq, who
	r.answers++
	cells := r.cells[who.node]
	if cells == nil {
		cells = make(map[int64]bool)
		r.cells[who.node] = cells
	}
	cells[int64(at/bucket)] = true
}

// look notes what a look into a node has shown; it began at sent and was over
// at seen.
func (r *recorder) look(node, what string, there bool, sent, seen instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present[node] = there
	if there {
		r.proof(node, what, sent, seen)
	} else {
		delete(r.open, node+what)
	}
}

// forget is called when a node is gone and cannot be looked into.
func (r *recorder) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.present, node)
}

// proof notes that node acted at some time between asked and told. The caller
// holds mu.
func (r *recorder) proof(node, what string, asked, told instant) {
	s := r.open[node+what]
	if s == nil || asked-s.end > together {
		s = &span{node: node, what: what, start: told, end: asked}
		r.open[node+what] = s
		r.spans = append(r.spans, s)
	}
	s.end = max(s.end, asked)
}

// An overlap is a time in which two nodes acted.
type overlap struct {
	a, b span
	dur  time.Duration
}

func (o overlap) String() string {
	return fmt.Sprintf("%s (%s) and %s (%s) together for %s", o.a.node, o.a.what, o.b.node, o.b.what, ms(o.dur))
}

// overlaps returns the proven overlaps since from.
func (r *recorder) overlaps(from instant) []overlap {
	r.mu.Lock()
	defer r.mu.Unlock()
	var spans []span
	for _, s := range r.spans {
		if s.end > from && s.end > s.start {
			spans = append(spans, *s)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.start - b.start) })
	var found []overlap
	for i, a := range spans {
		for _, b := range spans[i+1:] {
			if b.start >= a.end {
				break
			}
			if b.node != a.node {
				found = append(found, overlap{a, b, min(a.end, b.end) - b.start})
			}
		}
	}
	return found
}

// outages returns the times since from in which nobody answered.
func (r *recorder) outages(from instant) []gap {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []gap
	for _, g := range r.gaps {
		if g.to > from && g.isOutage() {
			found = append(found, g)
		}
	}
	return found
}

// outage returns how long nobody has answered since from, in all.
func (r *recorder) outage(from instant) (sum time.Duration) {
	for _, g := range r.outages(from) {
		sum += g.to - g.from
	}
	return sum
}

// held returns the longest time since from in which the recorder did not ask,
// or got no answer though none was lost.
func (r *recorder) held(from instant) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	longest := probeEvery
	for _, p := range r.pauses {
		if p.at > from {
			longest = max(longest, p.dur)
		}
	}
	for _, g := range r.gaps {
		if g.to > from && !g.isOutage() {
			longest = max(longest, g.to-g.from)
		}
	}
	return longest
}

// answering returns whose answer was the last one, and how long ago.
func (r *recorder) answering() (incarnation, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == 0 {
		return incarnation{}, time.Hour
	}
	return r.who, now() - r.last
}

// isPresent reports what was seen at the last look at a node, and whether it
// can be looked at.
func (r *recorder) isPresent(node string) (there, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	there, known = r.present[node]
	return there, known
}

// picture shows in which of the last n cells of time a node answered.
func (r *recorder) picture(node string, n int) []bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cells := make([]bool, n)
	last := int64(now() / bucket)
	for i := range cells {
		cells[i] = r.cells[node][last-int64(n-1-i)]
	}
	return cells
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string {
	switch v := float64(d) / float64(time.Millisecond); {
	case d == 0:
		return "0 ms"
	case v < 10:
		return fmt.Sprintf("%.1f ms", v)
	default:
		return fmt.Sprintf("%.0f ms", v)
	}
}
