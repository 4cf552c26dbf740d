package etcd

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A span of time in which a node may act as primary: from the take, or the
// adoption, until the demotion, or else until the lease's own end. Instants
// are those of one machine.
type acting struct {
	node       string
	term       sdk.Term
	begin, end sdk.Instant
}

// overlaps tells of each two nodes that might act at one time, and of terms
// that do not grow from one node to the next.
func overlaps(all []acting) (faults []string) {
	all = slices.SortedFunc(slices.Values(all), func(a, b acting) int { return int(a.begin - b.begin) })
	for i, a := range all {
		for _, b := range all[:i] {
			if a.node == b.node {
				continue
			}
			if both := min(a.end, b.end).Sub(a.begin); both > 0 {
				faults = append(faults, fmt.Sprintf("%s in term %d and %s in term %d act both for %v", b.node, b.term, a.node, a.term, both))
			}
			if a.term <= b.term {
				faults = append(faults, fmt.Sprintf("%s begins term %d after %s began term %d", a.node, a.term, b.node, b.term))
			}
		}
	}
	return faults
}

func TestOverlapsAreFound(t *testing.T) {
	for _, c := range []struct {
		name string
		all  []acting
		want string // part of the only fault; empty for none
	}{
		{"one after the other", []acting{{"a", 1, 10, 20}, {"b", 2, 20, 30}}, ""},
		{"adopted by the same node", []acting{{"a", 1, 10, 20}, {"a", 1, 15, 30}}, ""},
		{"both", []acting{{"b", 2, 19, 30}, {"a", 1, 10, 20}}, "a in term 1 and b in term 2 act both for 1ns"},
		{"one within another", []acting{{"a", 1, 10, 50}, {"b", 2, 20, 30}}, "for 10ns"},
		{"not neighbours", []acting{{"a", 1, 10, 50}, {"a", 1, 12, 13}, {"b", 2, 20, 30}}, "for 10ns"},
		{"term twice", []acting{{"a", 1, 10, 20}, {"b", 1, 20, 30}}, "b begins term 1 after a began term 1"},
	} {
		got := overlaps(c.all)
		if c.want == "" && len(got) == 0 || len(got) == 1 && c.want != "" && strings.Contains(got[0], c.want) {
			continue
		}
		t.Errorf("%s: got %q, want %q", c.name, got, c.want)
	}
}

// A stretchOfTime is from one instant to another.
type stretchOfTime struct{ begin, end sdk.Instant }

func (s stretchOfTime) length() time.Duration { return s.end.Sub(s.begin) }

// within is how much of s is in other.
func (s stretchOfTime) within(other stretchOfTime) time.Duration {
	return max(min(s.end, other.end).Sub(max(s.begin, other.begin)), 0)
}

// vacancies are the times, within the range, in which nobody acts.
func vacancies(all []acting, from, to sdk.Instant) (gaps []stretchOfTime) {
	all = slices.SortedFunc(slices.Values(all), func(a, b acting) int { return int(a.begin - b.begin) })
	last := from
	for _, a := range append(all, acting{begin: to, end: to}) {
		if a.begin > to {
			break
		}
		if a.begin > last {
			gaps = append(gaps, stretchOfTime{last, a.begin})
		}
		last = max(last, a.end)
	}
	return gaps
}

// A ledger keeps in a file when a process acted, so that it outlives the
// process: for each tenure its term, beginning and end.
type ledger struct {
	f   *os.File
	off int64
}

func (l *ledger) begin(term sdk.Term, begin sdk.Instant) (entry int64, err error) {
	entry, l.off = l.off, l.off+24
	return entry, l.write(entry, uint64(term), uint64(begin), uint64(begin))
}

func (l *ledger) extend(entry int64, end sdk.Instant) error { return l.write(entry+16, uint64(end)) }

func (l *ledger) write(at int64, values ...uint64) error {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	_, err := l.f.WriteAt(b, at)
	return err
}

func readLedger(file, node string) ([]acting, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []acting
	for ; len(data) >= 24; data = data[24:] {
		v := func(i int) uint64 { return binary.LittleEndian.Uint64(data[8*i:]) }
		all = append(all, acting{node: node, term: sdk.Term(v(0)), begin: sdk.Instant(v(1)), end: sdk.Instant(v(2))})
	}
	return all, nil
}
