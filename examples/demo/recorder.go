package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	// seenFor is how long what was seen of a node counts as how it is.
	seenFor = 50 * time.Millisecond
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

// isGlimpse reports whether one question alone was answered: the node acted at
// some time between its asking, end, and the answer, start.
func (s span) isGlimpse() bool { return s.end <= s.start }

func (s span) first() instant { return min(s.start, s.end) }
func (s span) last() instant  { return max(s.start, s.end) }

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

// A sight is an answer: the node acted at some time between the question and
// when the answer was there.
type sight struct{ asked, told instant }

// asking says whom a recorder asks.
type asking struct {
	every   time.Duration    // between two questions of a client
	targets []netip.AddrPort // each is asked by a client
	service string           // the address whose answers count as the service's; "" for any
	direct  *direct          // asks each node for that address past the network; nil without one
}

// A recorder notes who acted when, from outside.
type recorder struct {
	asking
	conn *net.UDPConn

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
	present map[string]bool  // what was seen at the last look at each node
	newest  map[string]sight // the last direct answer at the address, by node
}

// A pause is a time in which the recorder itself was held up.
type pause struct {
	at  instant
	dur time.Duration
}

// newRecorder opens the recorder's socket. It closes what it was given when it
// ends.
func newRecorder(a asking) (*recorder, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, fmt.Errorf("open the recorder's socket: %w", err)
	}
	r := &recorder{
		asking: a, conn: conn,
		open: make(map[string]*span), cells: make(map[string]map[int64]bool), present: make(map[string]bool), newest: make(map[string]sight),
	}
	return r, conn.SetReadBuffer(4 << 20)
}

// run asks and listens until ctx ends.
func (r *recorder) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.ask(ctx) })
	g.Go(func() error { return listen(ctx, r.conn, r.answer) })
	if r.direct != nil {
		g.Go(func() error { return r.askDirectly(ctx) })
		g.Go(func() error { return listen(ctx, r.direct.conn, r.answerDirectly) })
	}
	return g.Wait()
}

// close gives up the sockets, also of a recorder that never ran.
func (r *recorder) close() error {
	if r.direct != nil {
		return errors.Join(r.conn.Close(), r.direct.close())
	}
	return r.conn.Close()
}

func (r *recorder) ask(ctx context.Context) error {
	tick := time.NewTicker(r.every)
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
		if d := at - r.prev; r.prev != 0 && d > 2*r.every {
			r.pauses = append(r.pauses, pause{at, d})
		}
		r.prev = at
		r.mu.Unlock()
		question := strconv.AppendUint(nil, seq, 10)
		for _, t := range r.targets {
			_, _ = r.conn.WriteToUDPAddrPort(question, t) // nobody there, no route: that is what is measured
		}
	}
}

// askDirectly puts the instant into the question: the answer brings it back.
func (r *recorder) askDirectly(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.direct.ask(strconv.AppendInt(nil, int64(now()), 10))
	}
}

// A reply is what a parser, or a node's responder, says to a question.
type reply struct {
	Seq  uint64 `json:"seq"` // as asked
	Node string `json:"node"`
	Term uint64 `json:"term"`
	PID  int    `json:"pid"`
}

// listen hands on what arrives until ctx ends.
func listen(ctx context.Context, conn *net.UDPConn, hear func(from string, seq uint64, who incarnation, at instant)) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		at := now()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen for answers: %w", err)
		}
		var a reply
		if err := json.Unmarshal(buf[:n], &a); err != nil {
			return fmt.Errorf("read an answer from %s: %w", from, err)
		}
		hear(from.Addr().Unmap().String(), a.Seq, incarnation{a.Node, a.Term, a.PID}, at)
	}
}

// addressAnswers is what proves that a node acts, whoever has asked.
const addressAnswers = "the address answers"

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
		what = addressAnswers
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

// answerDirectly notes that the node at whose door a question was put answered
// it at the service's address. That proves that it acts, whatever the caches of
// its neighbours say; whether the service can be reached is for clients to say.
func (r *recorder) answerDirectly(from string, asked uint64, who incarnation, at instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from != r.service || instant(asked) > at {
		return
	}
	r.proof(who.node, addressAnswers, instant(asked), at)
	if s := r.newest[who.node]; instant(asked) >= s.asked {
		r.newest[who.node] = sight{instant(asked), at}
	}
}

// lastDirect returns the newest direct answer of a node at the service's
// address; a zero sight before the first.
func (r *recorder) lastDirect(node string) sight {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest[node]
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
	delete(r.newest, node)
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
	return fmt.Sprintf("%s (%s) and %s (%s) together for %s", o.a.node, o.a.what, o.b.node, o.b.what, o.long())
}

// long says for how long it was.
func (o overlap) long() string {
	if o.dur == 0 {
		return "an instant"
	}
	return ms(o.dur)
}

// overlaps returns the proven overlaps since from.
func (r *recorder) overlaps(from instant) []overlap {
	r.mu.Lock()
	defer r.mu.Unlock()
	var spans []span
	for _, s := range r.spans {
		if s.end > from {
			spans = append(spans, *s)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first(), b.first()) })
	var found []overlap
	for i, a := range spans {
		for _, b := range spans[i+1:] {
			if b.first() >= a.last() {
				break
			}
			if b.node == a.node || a.isGlimpse() || b.isGlimpse() && b.last() > a.last() {
				continue
			}
			found = append(found, overlap{a, b, max(min(a.end, b.end)-b.start, 0)})
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
	longest := r.every
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

// isPresent reports whether the address, or the file that stands for it, was
// seen on a node a moment ago.
func (r *recorder) isPresent(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present[node] || r.newest[node].told > now()-seenFor
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
