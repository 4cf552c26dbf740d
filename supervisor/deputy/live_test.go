package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A clerk notes what a live screen wants.
type clerk struct {
	chosen string
	orders [][]string
	busy   bool
}

func (c *clerk) choose(service string) { c.chosen = service }
func (c *clerk) order(args []string) bool {
	c.orders = append(c.orders, args)
	return !c.busy
}

// A stage is a live screen of 80 columns and 24 lines that shows two services.
func stage(t *testing.T) (live, *clerk) {
	c := &clerk{}
	l := live{screen: screen{width: 80, height: 24}, zone: time.UTC, orders: c}
	fine, lost := orders(), orders()
	lost.Service, lost.Vacant = "queue", true
	l = tellLive(t, l, tea.WindowSizeMsg{Width: 80, Height: 24},
		seen{[]supervisor.Report{supervisor.NewReport(fine, nil), supervisor.NewReport(lost, nil)}, nil, noon()})
	return l, c
}

// tellLive has a live screen take in messages.
func tellLive(t *testing.T, l live, all ...tea.Msg) live {
	t.Helper()
	for _, m := range all {
		next, _ := l.Update(m)
		l = next.(live)
		page := l.page()
		for _, line := range page {
			if utf8.RuneCountInString(line) > l.screen.width {
				t.Errorf("after %v: wider than %d columns: %q", m, l.screen.width, line)
			}
		}
		if l.screen.height > 0 && len(page) != l.screen.height {
			t.Errorf("after %v: %d lines, want %d:\n%s", m, len(page), l.screen.height, strings.Join(page, "\n"))
		}
	}
	return l
}

func key(s string) tea.Msg {
	if len(s) == 1 {
		return tea.KeyPressMsg{Code: rune(s[0]), Text: s}
	}
	return tea.KeyPressMsg{Code: map[string]rune{"tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "esc": tea.KeyEscape}[s]}
}

func TestLiveScreen(t *testing.T) {
	l, c := stage(t)
	if l.chosen != "queue" || c.chosen != "queue" {
		t.Errorf("%s is chosen, %s asked for, want queue, which needs somebody", l.chosen, c.chosen)
	}
	l = tellLive(t, l, key("j"), past{"orders-db", recount(changes())[1:]})
	compare(t, strings.Join(l.page(), "\n")+"\n", `
deputy watch  12:00:00
      SERVICE    PRIMARY  TERM  SINCE  FIT  REMARKS
   !  queue      -        42    -      1/3  no primary: db1 was lost, its lea...
>     orders-db  db1      42    3m00s  2/3

orders-db
  NODE  ROLE       HEALTH  TERM  SINCE  LEASE  VERDICT
  db1   primary    fit     42    3m12s  -      is primary
  db2   candidate  fit     -     2h00m  -      primary is db1
  db3   standby    unfit   -     10s    -      not fit: mysql: replication is
                                               1h20m behind and the relay log
                                               cannot be read: error 1594

WHEN                 TERM  FROM  TO   TOOK  WHY
2030-05-06 11:57:00  42    db2   db1  -     switchover: switchover to this node,
                                            asked by alice







up/down choose · s switchover · p pause/resume · d drain/undrain · q leave
`)
}

func TestLiveOrders(t *testing.T) {
	l, c := stage(t)
	l = tellLive(t, l, key("s"))
	if l.question != nil || len(l.told) != 1 || !strings.Contains(l.told[0], "no primary to move the role from") {
		t.Errorf("a switchover without a primary: asks %v, says %q", l.question, l.told)
	}
	l = tellLive(t, l, key("down"), key("s"))
	if page := strings.Join(l.page(), "\n"); !strings.Contains(page, "deputy switchover orders-db --to db2: db1 demotes, then db2 promotes") || !strings.Contains(page, "y does it") {
		t.Errorf("the question is not shown:\n%s", page)
	}
	l = tellLive(t, l, key("n"))
	if l.question != nil || len(c.orders) > 0 {
		t.Fatalf("no is taken for an order: %v", c.orders)
	}
	l = tellLive(t, l, key("s"), key("y"))
	want := []string{"switchover", "orders-db", "--to", "db2"}
	if len(c.orders) != 1 || !slices.Equal(c.orders[0], want) {
		t.Fatalf("ordered %v, want %v", c.orders, want)
	}
	l = tellLive(t, l, key("p")) // while that goes on
	if l.question != nil {
		t.Error("asks something else while an order is carried out")
	}
	l = tellLive(t, l, said("  0.01s  asked db2"), ended{errors.New("switchover orders-db: not permitted: ask for deputy-admin")})
	page := strings.Join(l.page(), "\n")
	for _, want := range []string{"asked db2", "not permitted: ask for deputy-admin", "not done: deputy switchover orders-db --to db2"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not shown:\n%s", want, page)
		}
	}

	l = tellLive(t, l, key("d"), key("tab"), key("y"), ended{}, key("p"), key("y"))
	if got := c.orders[1:]; len(got) != 2 || !slices.Equal(got[0], []string{"drain", "db2"}) || !slices.Equal(got[1], []string{"pause", "orders-db", "--for", "1h"}) {
		t.Errorf("ordered %v, want a drain of the second node and a pause that ends", got)
	}
}

func TestLiveUndoes(t *testing.T) {
	s := orders()
	s.Pause = &supervisor.Pause{Until: noon().Add(time.Hour)}
	s.Drained = []supervisor.Drain{{Node: "db1"}}
	r := supervisor.NewReport(s, nil)
	if o, _ := pauses(r); !slices.Equal(o[0].args, []string{"resume", "orders-db"}) {
		t.Errorf("of a paused service: %v", o)
	}
	if o, _ := drains(r); len(o) != 3 || !slices.Equal(o[0].args, []string{"undrain", "db1"}) || !slices.Equal(o[1].args, []string{"drain", "db2"}) {
		t.Errorf("of a drained node: %v", o)
	}
	s.Candidates = s.Candidates[:1]
	if o, why := moves(supervisor.NewReport(s, nil)); len(o) > 0 || !strings.Contains(why, "nobody could take the role") {
		t.Errorf("a switchover to nobody: %v, %q", o, why)
	}
}

// However many services there are, the chosen one is on the screen; and what
// cannot be read any more does not take away what was.
func TestLiveManyServices(t *testing.T) {
	l, _ := stage(t)
	var many []supervisor.Report
	for i := range 40 {
		s := orders()
		s.Service = "s" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		s.Candidates[2] = supervisor.Candidate{Node: supervisor.Node{Name: "db3"}, Role: sdk.RoleCandidate, Fit: true, Priority: 1, Hash: s.Candidates[0].Hash}
		many = append(many, supervisor.NewReport(s, nil))
	}
	l = tellLive(t, l, seen{many, nil, noon()}, key("G"))
	if page := strings.Join(l.page(), "\n"); !strings.Contains(page, ">     "+l.chosen) {
		t.Errorf("the last service, %s, is not on the screen:\n%s", l.chosen, page)
	}
	l = tellLive(t, l, seen{nil, errors.New("etcd is away"), noon().Add(time.Second)})
	if page := strings.Join(l.page(), "\n"); !strings.Contains(page, "12:00:01  etcd is away") || !strings.Contains(page, l.chosen) {
		t.Errorf("what was seen last is gone:\n%s", page)
	}
	tellLive(t, l, tea.WindowSizeMsg{Width: 60, Height: 12}, tea.WindowSizeMsg{Width: 200, Height: 60}, key("home"))
}
