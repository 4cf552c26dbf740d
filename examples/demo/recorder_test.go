package main

import (
	"testing"
	"time"
)

// A log feeds a recorder with what it would have seen, in milliseconds.
type log struct {
	*recorder
	t *testing.T
}

func newLog(t *testing.T, service string) log {
	t.Helper()
	r, err := newRecorder(asking{every: probeEvery, service: service})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close() })
	return log{r, t}
}

const step = time.Millisecond

// asks notes one question, asked at a time.
func (l log) asks(at int) uint64 {
	l.seq++
	l.sent[l.seq%uint64(len(l.sent))] = instant(at) * step
	return l.seq
}

// answers has a node answer one question, from and to included, every 2 ms.
func (l log) answers(node string, term uint64, from string, first, last int) {
	for at := first; at <= last; at += 2 {
		l.answer(from, l.asks(at), incarnation{node, term, int(term)}, instant(at+1)*step)
	}
}

func (l log) silence(first, last int) {
	for at := first; at <= last; at += 2 {
		l.asks(at)
	}
}

const addr = "192.0.2.10"

func TestOutageFromLastAnswerToFirst(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.silence(202, 298)
	l.answers("n2", 2, addr, 300, 400)
	if got, want := l.outage(0), 100*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
	if found := l.overlaps(0); len(found) > 0 {
		t.Errorf("got %v, want no overlap", found)
	}
	if got := l.outage(302 * step); got != 0 {
		t.Errorf("got an outage of %s after it was over, want none", got)
	}
}

func TestSameParserWithoutLossIsNoOutage(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.answers("n1", 1, addr, 260, 300) // the recorder was held up, and asked nothing
	if got := l.outage(0); got != 0 {
		t.Errorf("got an outage of %s, want none", got)
	}
	if got, want := l.held(0), 60*step; got != want {
		t.Errorf("got held up for %s, want %s", got, want)
	}
}

func TestLostQuestionIsAnOutage(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.silence(202, 202)
	l.answers("n1", 1, addr, 204, 300)
	if got, want := l.outage(0), 4*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
}

func TestRestartedParserIsAnOutage(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.answers("n1", 2, addr, 202, 300)
	if got, want := l.outage(0), 2*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
}

func TestTwoParsersAtOnce(t *testing.T) {
	l := newLog(t, addr)
	for at := 100; at <= 200; at += 2 {
		seq := l.asks(at)
		l.answer("192.0.2.11", seq, incarnation{"n1", 1, 1}, instant(at+1)*step)
		if at >= 180 {
			l.answer("192.0.2.12", seq, incarnation{"n2", 2, 2}, instant(at+1)*step)
		}
	}
	found := l.overlaps(0)
	if len(found) != 1 {
		t.Fatalf("got %v, want one overlap", found)
	}
	// n2 answered at 181, and a question asked at 200 was answered by n1.
	if got, want := found[0].dur, 19*step; got != want {
		t.Errorf("got an overlap of %s, want %s", got, want)
	}
}

func TestAnswerUnderWayIsNoProof(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, "192.0.2.11", 100, 200)
	// n1 stopped right after it had answered, n2 started, and its answer was
	// faster than that of n1.
	slow, fast := l.asks(202), l.asks(204)
	l.answer("192.0.2.12", fast, incarnation{"n2", 2, 2}, 205*step)
	l.answer("192.0.2.11", slow, incarnation{"n1", 1, 1}, 230*step)
	l.answers("n2", 2, "192.0.2.12", 206, 300)
	if found := l.overlaps(0); len(found) > 0 {
		t.Errorf("got %v, want no overlap", found)
	}
}

// answersDirectly has a node answer at the address when it is asked there
// directly, from and to included, every 2 ms.
func (l log) answersDirectly(node, from string, first, last int) {
	for at := first; at <= last; at += 2 {
		l.answerDirectly(from, uint64(instant(at)*step), incarnation{node: node}, instant(at+1)*step)
	}
}

func TestAddressAndParserOnDifferentNodes(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, "192.0.2.11", 100, 200)
	l.answersDirectly("n2", addr, 150, 200)
	if found := l.overlaps(0); len(found) != 1 {
		t.Errorf("got %v, want one overlap", found)
	}
}

func TestTwoAddressesOfWhichClientsSeeOne(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n2", 2, addr, 100, 200)
	l.answersDirectly("n2", addr, 100, 200)
	l.answersDirectly("n1", addr, 120, 180)
	found := l.overlaps(0)
	if len(found) != 1 {
		t.Fatalf("got %v, want one overlap", found)
	}
	if got, want := found[0].dur, 59*step; got != want {
		t.Errorf("got an overlap of %s, want %s", got, want)
	}
	if got, want := l.lastDirect("n1"), (sight{180 * step, 181 * step}); got != want {
		t.Errorf("got the last answer of n1 as %v, want %v", got, want)
	}
}

func TestOneAnswerWhileAnotherAnswers(t *testing.T) {
	for _, c := range []struct {
		at   int // when n1 is asked; its answer comes 1 ms later
		want int
	}{{98, 0}, {100, 0}, {150, 1}, {200, 0}, {250, 0}} {
		l := newLog(t, addr)
		l.answers("n2", 2, addr, 100, 200)
		l.answersDirectly("n1", addr, c.at, c.at)
		found := l.overlaps(0)
		if len(found) != c.want {
			t.Errorf("one answer at %d ms: got %v, want %d overlaps", c.at, found, c.want)
		} else if c.want > 0 && never(found) != "FOR an instant" {
			t.Errorf("one answer at %d ms: got %q, want that it was for an instant", c.at, never(found))
		}
	}
}

func TestDirectAnswersAreNotWhatClientsSee(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.answersDirectly("n1", addr, 200, 300) // nobody finds the way there
	l.silence(202, 298)
	l.answers("n1", 1, addr, 300, 400)
	if got, want := l.outage(0), 100*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
}

func TestDirectAnswerFromElsewhereProvesNothing(t *testing.T) {
	l := newLog(t, addr)
	l.answersDirectly("n1", "192.0.2.11", 100, 200)
	if len(l.spans) > 0 || l.isPresent("n1") {
		t.Errorf("got %v, want nothing", l.spans)
	}
}

func TestRoleThatCameBackWasAwayBetween(t *testing.T) {
	l := newLog(t, "")
	look := func(node string, there bool, first, last int) {
		for at := first; at <= last; at += 4 {
			l.look(node, "shows the role", there, instant(at)*step, instant(at+1)*step)
		}
	}
	look("n1", true, 100, 140)
	look("n1", false, 144, 144)
	look("n2", true, 146, 154)
	look("n1", true, 158, 200)
	if found := l.overlaps(0); len(found) > 0 {
		t.Errorf("got %v, want no overlap", found)
	}
}

func TestAnyNodeAnswersWithoutAnAddress(t *testing.T) {
	l := newLog(t, "")
	l.answers("n1", 1, "127.0.0.11", 100, 200)
	l.silence(202, 248)
	l.answers("n2", 2, "127.0.0.12", 250, 300)
	if got, want := l.outage(0), 50*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
}

func TestAnswersOfNodesAreNotTheService(t *testing.T) {
	l := newLog(t, addr)
	l.answers("n1", 1, addr, 100, 200)
	l.answers("n1", 1, "192.0.2.11", 202, 298) // the parser runs, its address is gone
	l.answers("n1", 1, addr, 300, 400)
	if got, want := l.outage(0), 100*step; got != want {
		t.Errorf("got an outage of %s, want %s", got, want)
	}
}
