package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// A history is the set of transactions that a server has, applied or only
// received. Two histories of servers of one kind are a partial order: each may
// have what the other lacks.
type history interface {
	// has reports whether all of another one is in it. Of another kind nothing
	// is.
	has(other history) bool
	// without names what of it another one lacks, for people.
	without(other history) string
	// plus returns the history with all of another one added.
	plus(other history) history
	// String is how a position publishes it; readHistory reads it.
	String() string
}

// readHistory reads what String of a history has written.
func readHistory(text string) (history, error) {
	kind, rest, _ := strings.Cut(text, " ")
	switch kind {
	case kindMySQL:
		return readSet(rest)
	case kindMariaDB, kindMariaDBStrict:
		return readState(rest, kind == kindMariaDBStrict)
	}
	return nil, fmt.Errorf("read position %.40q: it is of no server that is known here", text)
}

// The first word of a position says whose algebra it needs.
const (
	kindMySQL         = "mysql"
	kindMariaDB       = "mariadb"
	kindMariaDBStrict = "mariadb-strict"
)

// compare returns how mine compares with the other.
func compare(mine, other history) sdk.Order {
	switch more, less := mine.has(other), other.has(mine); {
	case more && less:
		return sdk.Equal
	case more:
		return sdk.Ahead
	case less:
		return sdk.Behind
	}
	return sdk.Incomparable
}

// A set is MySQL's history: for each source, UUID or UUID:TAG, the intervals of
// transaction numbers (MySQL manual, "GTID Format and Storage").
type set map[string][]interval

// An interval is numbers from first to last, both in it.
type interval struct{ first, last uint64 }

// readSet reads a set as MySQL writes it, with or without line ends and tags:
// "uuid:1-5:7,uuid:1:tag:3-4".
func readSet(text string) (set, error) {
	s := set{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		fields := strings.Split(part, ":")
		uuid := strings.ToLower(strings.TrimSpace(fields[0]))
		if !isUUID(uuid) || len(fields) < 2 {
			return nil, fmt.Errorf("read GTID set: %.80q is not UUID:NUMBERS", part)
		}
		source := uuid
		for _, f := range fields[1:] {
			f = strings.ToLower(strings.TrimSpace(f))
			if isTag(f) {
				source = uuid + ":" + f
				continue
			}
			i, err := readInterval(f)
			if err != nil {
				return nil, fmt.Errorf("read GTID set: in %.80q: %w", part, err)
			}
			s[source] = append(s[source], i)
		}
	}
	for source, all := range s {
		s[source] = tidy(all)
	}
	return s, nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := r >= '0' && r <= '9' || r >= 'a' && r <= 'f'
		if dash != (r == '-') || !dash && !hex {
			return false
		}
	}
	return true
}

// isTag reports whether a field is a tag: it begins with a letter or _, which
// no number does.
func isTag(s string) bool {
	return s != "" && (s[0] >= 'a' && s[0] <= 'z' || s[0] == '_')
}

func readInterval(s string) (interval, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return interval{}, fmt.Errorf("%.40q is no number", first)
	}
	to, err := strconv.ParseUint(last, 10, 63)
	switch {
	case err != nil:
		return interval{}, fmt.Errorf("%.40q is no number", last)
	case from == 0 || to < from:
		return interval{}, fmt.Errorf("%.40q is no interval", s)
	}
	return interval{from, to}, nil
}

// tidy returns intervals in order, those that meet as one.
func tidy(all []interval) []interval {
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var out []interval
	for _, i := range all {
		if n := len(out); n > 0 && i.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, i.last)
			continue
		}
		out = append(out, i)
	}
	return out
}

// minus returns what of the set another one lacks.
func (s set) minus(other set) set {
	left := set{}
	for source, mine := range s {
		for _, i := range mine {
			from := i.first
			for _, o := range other[source] {
				if o.last < from || o.first > i.last {
					continue
				}
				if o.first > from {
					left[source] = append(left[source], interval{from, o.first - 1})
				}
				from = o.last + 1
			}
			if from <= i.last {
				left[source] = append(left[source], interval{from, i.last})
			}
		}
	}
	return left
}

func (s set) has(other history) bool {
	o, ok := other.(set)
	return ok && len(o.minus(s)) == 0
}

func (s set) without(other history) string {
	o, _ := other.(set)
	return s.minus(o).list()
}

func (s set) plus(other history) history {
	o, _ := other.(set)
	sum := set{}
	for _, one := range []set{s, o} {
		for source, all := range one {
			sum[source] = append(sum[source], all...)
		}
	}
	for source, all := range sum {
		sum[source] = tidy(all)
	}
	return sum
}

// list is the set as MySQL takes it.
func (s set) list() string {
	var parts []string
	for _, source := range slices.Sorted(maps.Keys(s)) {
		text := source
		for _, i := range s[source] {
			text += fmt.Sprintf(":%d", i.first)
			if i.last != i.first {
				text += fmt.Sprintf("-%d", i.last)
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ",")
}

func (s set) String() string { return kindMySQL + " " + s.list() }

// A gtidState is MariaDB's history: for each domain and each server that has
// written in it, the highest sequence number of that server, as in
// @@gtid_binlog_state (MariaDB manual, "Global Transaction ID"). The numbers of
// a domain go on from one primary to the next, so that the last transaction
// alone does not tell whether what another server wrote before is there.
type gtidState struct {
	numbers map[origin]uint64
	// strict says that the server has gtid_strict_mode on: the numbers of a
	// domain only grow in its history, so that whoever has its last transaction
	// has those before.
	strict bool
}

// An origin is a server in a domain.
type origin struct{ domain, server uint32 }

// readState reads GTIDs as MariaDB writes them: "0-1-100,0-2-101".
func readState(text string, strict bool) (gtidState, error) {
	s := gtidState{map[origin]uint64{}, strict}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		fields := strings.Split(part, "-")
		if len(fields) != 3 {
			return gtidState{}, fmt.Errorf("read GTIDs: %.80q is not DOMAIN-SERVER-NUMBER", part)
		}
		var n [3]uint64
		for i, bits := range []int{32, 32, 64} {
			var err error
			if n[i], err = strconv.ParseUint(fields[i], 10, bits); err != nil {
				return gtidState{}, fmt.Errorf("read GTIDs: in %.80q %.40q is no such number", part, fields[i])
			}
		}
		s.add(origin{uint32(n[0]), uint32(n[1])}, n[2])
	}
	return s, nil
}

func (s gtidState) add(o origin, n uint64) {
	if n > 0 {
		s.numbers[o] = max(s.numbers[o], n)
	}
}

// last is the last transaction of a domain: where numbers only grow, the one
// with the highest.
func (s gtidState) last(domain uint32) (o origin, n uint64) {
	for at, number := range s.numbers {
		if at.domain == domain && (number > n || number == n && at.server < o.server) {
			o, n = at, number
		}
	}
	return o, n
}

// lacks are the transactions of the other that are not in s.
func (s gtidState) lacks(other gtidState) []string {
	var missing []string
	for _, o := range slices.SortedFunc(maps.Keys(other.numbers), func(a, b origin) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.server, b.server))
	}) {
		n := other.numbers[o]
		mine, known := s.numbers[o]
		if mine >= n {
			continue
		}
		// A server that was made from a copy of another knows nothing of the
		// servers that wrote before that. What the other has of those comes
		// before its last transaction; who has that has them.
		at, last := other.last(o.domain)
		if !known && other.strict && at != o && s.numbers[at] >= last && last != math.MaxUint64 {
			continue
		}
		missing = append(missing, fmt.Sprintf("%d-%d-%d", o.domain, o.server, n))
	}
	return missing
}

func (s gtidState) has(other history) bool {
	o, ok := other.(gtidState)
	return ok && len(s.lacks(o)) == 0
}

func (s gtidState) without(other history) string {
	o, ok := other.(gtidState)
	if !ok {
		o = gtidState{}
	}
	return strings.Join(o.lacks(s), ",")
}

func (s gtidState) plus(other history) history {
	o, _ := other.(gtidState)
	sum := gtidState{maps.Clone(s.numbers), s.strict}
	if sum.numbers == nil {
		sum.numbers = map[origin]uint64{}
	}
	for at, n := range o.numbers {
		sum.add(at, n)
	}
	return sum
}

func (s gtidState) String() string {
	kind := kindMariaDB
	if s.strict {
		kind = kindMariaDBStrict
	}
	var parts []string
	for o, n := range s.numbers {
		parts = append(parts, fmt.Sprintf("%d-%d-%d", o.domain, o.server, n))
	}
	slices.Sort(parts)
	return kind + " " + strings.Join(parts, ",")
}

// aside begins the position of a server that has to be made anew: another was
// promoted without what it alone has, so that nobody waits for it any more.
const aside = "needs_rebuild "

// rank compares positions as checks have published them.
func rank(mine string, others map[string]string) (map[string]sdk.Order, error) {
	m, err := readHistory(mine)
	if err != nil {
		return nil, err
	}
	orders := make(map[string]sdk.Order, len(others))
	var wrong []error
	for node, text := range others {
		if strings.HasPrefix(text, aside) {
			orders[node] = sdk.Ahead
			continue
		}
		o, err := readHistory(text)
		if err != nil {
			orders[node] = sdk.Incomparable
			wrong = append(wrong, fmt.Errorf("%s: %w", node, err))
			continue
		}
		orders[node] = compare(m, o)
	}
	if len(wrong) == len(others) {
		return orders, errors.Join(wrong...)
	}
	return orders, nil
}
