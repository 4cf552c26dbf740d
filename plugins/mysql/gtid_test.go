package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

const (
	u1 = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	u2 = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
)

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name        string
		mine, other string
		want        sdk.Order
		extra       string // what of mine the other lacks
	}{
		{"mysql same", "mysql " + u1 + ":1-5", "mysql " + u1 + ":1-3:4-5", sdk.Equal, ""},
		{"mysql both empty", "mysql ", "mysql ", sdk.Equal, ""},
		{"mysql more", "mysql " + u1 + ":1-6", "mysql " + u1 + ":1-5", sdk.Ahead, u1 + ":6"},
		{"mysql less", "mysql " + u1 + ":1-5", "mysql " + u1 + ":1-5," + u2 + ":1", sdk.Behind, ""},
		{"mysql fewer but one of its own", "mysql " + u1 + ":1-5," + u2 + ":8", "mysql " + u1 + ":1-900", sdk.Incomparable, u2 + ":8"},
		{"mysql a hole", "mysql " + u1 + ":1-3:5-9", "mysql " + u1 + ":1-9", sdk.Behind, ""},
		{"mysql hole on the other side", "mysql " + u1 + ":1-9", "mysql " + u1 + ":1-3:5-8", sdk.Ahead, u1 + ":4:9"},
		{"mysql tags are sources of their own", "mysql " + u1 + ":1-5:blue:1-2", "mysql " + u1 + ":1-5", sdk.Ahead, u1 + ":blue:1-2"},
		{"mysql letters of any case", "mysql " + strings.ToUpper(u1) + ":1-5", "mysql " + u1 + ":1-5", sdk.Equal, ""},

		{"mariadb same", "mariadb-strict 0-1-100", "mariadb-strict 0-1-100", sdk.Equal, ""},
		{"mariadb more", "mariadb-strict 0-1-101", "mariadb-strict 0-1-100", sdk.Ahead, "0-1-101"},
		{"mariadb after a hand-over", "mariadb-strict 0-1-100,0-2-101", "mariadb-strict 0-1-100", sdk.Ahead, "0-2-101"},
		{"mariadb errant write of the same number", "mariadb-strict 0-1-101", "mariadb-strict 0-1-100,0-2-101", sdk.Incomparable, "0-1-101"},
		{"mariadb errant write of a higher number", "mariadb-strict 0-1-104", "mariadb-strict 0-1-100,0-2-101", sdk.Incomparable, "0-1-104"},
		{"mariadb root wrote on a replica", "mariadb-strict 0-1-4,0-2-5", "mariadb-strict 0-1-5", sdk.Incomparable, "0-2-5"},
		{"mariadb two domains", "mariadb-strict 0-1-5,1-1-9", "mariadb-strict 0-1-6,1-1-8", sdk.Incomparable, "1-1-9"},
		{"mariadb a domain more", "mariadb-strict 0-1-5,1-1-9", "mariadb-strict 0-1-5", sdk.Ahead, "1-1-9"},
		{"mariadb made from a copy", "mariadb-strict 0-2-205", "mariadb-strict 0-1-100,0-2-205", sdk.Equal, ""},
		{"mariadb made from a copy, and behind", "mariadb-strict 0-2-204", "mariadb-strict 0-1-100,0-2-205", sdk.Behind, ""},
		{"mariadb made from a copy, without strict mode nobody knows", "mariadb 0-2-205", "mariadb 0-1-100,0-2-205", sdk.Behind, ""},
		{"mariadb empty", "mariadb-strict ", "mariadb-strict 0-1-1", sdk.Behind, ""},

		{"two kinds", "mariadb-strict 0-1-1", "mysql " + u1 + ":1", sdk.Incomparable, "0-1-1"},
	} {
		mine, err := readHistory(c.mine)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		other, err := readHistory(c.other)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := compare(mine, other); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		back := map[sdk.Order]sdk.Order{sdk.Ahead: sdk.Behind, sdk.Behind: sdk.Ahead}[c.want]
		if back == "" {
			back = c.want
		}
		if got := compare(other, mine); got != back {
			t.Errorf("%s, the other way: got %s, want %s", c.name, got, back)
		}
		if got := mine.without(other); got != c.extra {
			t.Errorf("%s: the other lacks %q, want %q", c.name, got, c.extra)
		}
		if sum := mine.plus(other); !sameKind(mine, other) {
			continue
		} else if !sum.has(mine) || !sum.has(other) {
			t.Errorf("%s: the sum %s lacks some of them", c.name, sum)
		}
	}
}

func sameKind(a, b history) bool {
	_, x := a.(set)
	_, y := b.(set)
	return x == y
}

func TestHistoriesThatAreNone(t *testing.T) {
	for _, text := range []string{
		"", "postgres 0/1", "mysql x:1", "mysql " + u1, "mysql " + u1 + ":0", "mysql " + u1 + ":5-1", "mysql " + u1 + ":1-", "mysql " + u1 + ":99999999999999999999",
		"mariadb 1", "mariadb 0-1", "mariadb 0-1-x", "mariadb 99999999999-1-1", "mariadb 0-1-2-3",
	} {
		if h, err := readHistory(text); err == nil {
			t.Errorf("%q was read as %s", text, h)
		}
	}
}

func TestRank(t *testing.T) {
	got, err := rank("mariadb-strict 0-1-100", map[string]string{"db2": "mariadb-strict 0-1-99", "db3": "mariadb-strict 0-1-100,0-3-101", "db4": "", "db5": "mariadb-strict 0-1-100"})
	want := map[string]sdk.Order{"db2": sdk.Ahead, "db3": sdk.Behind, "db4": sdk.Incomparable, "db5": sdk.Equal}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := rank("", map[string]string{"db2": "mariadb 0-1-1"}); err == nil {
		t.Error("a node without a position was ranked")
	}
}

// Whatever is read can be written and read again, has itself, and stays in the
// sum with what else there is.
func FuzzHistory(f *testing.F) {
	for _, s := range []string{"mysql " + u1 + ":1-5:7-9," + u2 + ":tag:1", "mariadb 0-1-100,1-2-3", "mariadb-strict 0-1-1", "mysql ", "x"} {
		f.Add(s, "mysql "+u2+":4")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		h, err := readHistory(a)
		if err != nil {
			return
		}
		again, err := readHistory(h.String())
		if err != nil || compare(h, again) != sdk.Equal || again.String() != h.String() {
			t.Fatalf("%q: written %q, read again %v, %v", a, h, again, err)
		}
		if extra := h.without(again); extra != "" {
			t.Fatalf("%q lacks %q of itself", a, extra)
		}
		o, err := readHistory(b)
		if err != nil || !sameKind(h, o) {
			return
		}
		sum := h.plus(o)
		if !sum.has(h) || !sum.has(o) {
			t.Fatalf("%q plus %q is %q, and lacks some of them", a, b, sum)
		}
		if (h.without(o) == "") != o.has(h) {
			t.Fatalf("%q without %q is %q, yet has says %v", a, b, h.without(o), o.has(h))
		}
	})
}

func TestIntervalsMeet(t *testing.T) {
	got := tidy([]interval{{7, 9}, {1, 3}, {4, 5}, {8, 12}})
	if want := []interval{{1, 5}, {7, 12}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
