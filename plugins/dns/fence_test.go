package main

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
)

// signed is a line to the primary name server with the key.
func (l *lab) signed() *line {
	return server{
		at: endpoint(l.primary), zone: zone + ".", timeout: 5 * time.Second, now: time.Now,
		key: &tsig{Name: "deputy.", Algorithm: "hmac-sha256", Secret: secret},
	}.line()
}

// update has the owner record and sets replaced, as the plugin does.
func (l *lab) update(t *testing.T, before, now owner, sets ...set) {
	t.Helper()
	x := l.signed()
	defer x.hangUp()
	if err := x.replace(t.Context(), "_deputy.db."+zone+".", &before, now, sets); err != nil {
		t.Fatal(err)
	}
}

func setOfDB(t *testing.T, address string) set {
	return set{name: "db." + zone + ".", kind: dns.TypeA, ttl: 10, records: []dns.RR{rr(t, "db."+zone+". 10 A "+address)}}
}

// The name server itself refuses the update of a primary that has read the
// owner record before another took over, and changes nothing.
func TestStaleUpdateIsRefusedByTheServer(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		of := func(term sdk.Term, node string) owner { return owner{term: term, node: node, service: "orders"} }
		x := l.signed()
		defer x.hangUp()
		name := domain("_deputy.db." + zone + ".")
		// Two claim first.
		if err := x.replace(t.Context(), name, nil, of(1, "a"), []set{setOfDB(t, node4)}); err != nil {
			t.Fatal(err)
		}
		if err := x.replace(t.Context(), name, nil, of(1, "b"), []set{setOfDB(t, "192.0.2.12")}); effectOf(err) != changed {
			t.Errorf("the second first claim: got %v", err)
		}
		// One takes over; the stale one has read what was before.
		was := of(1, "a")
		if err := x.replace(t.Context(), name, &was, of(3, "b"), []set{setOfDB(t, "192.0.2.12")}); err != nil {
			t.Fatal(err)
		}
		for _, now := range []owner{of(2, "a"), of(1, "a"), of(9, "a")} {
			if err := x.replace(t.Context(), name, &was, now, []set{setOfDB(t, node4)}); effectOf(err) != changed {
				t.Errorf("the stale update to %s: got %v", now, err)
			}
		}
		l.serves(l.primary, "db."+zone, dns.TypeA, "192.0.2.12")
		l.serves(l.primary, "_deputy.db."+zone, dns.TypeTXT, of(3, "b").String())
	})
}

// A primary that stalls between reading and updating, while another takes over,
// learns that its term is stale.
func TestStalledPrimary(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		x := newTap(t, l.primary)
		a, b := l.node("a", node4, l.config(m{"server": x.at})), l.node("b", "192.0.2.12", l.config())
		a.comes(sdk.Promote, 1, sdk.OutcomeDone)
		var once atomic.Bool
		x.does(func(update bool) deed {
			if !update || !once.CompareAndSwap(false, true) {
				return deed{}
			}
			return deed{before: func() { b.comes(sdk.Promote, 3, sdk.OutcomeDone) }}
		})
		a.comes(sdk.Promote, 2, sdk.OutcomeStaleTerm, "is of term 3, published by b in term 3, and this is term 2")
		if !once.Load() {
			t.Error("the update was never sent")
		}
		l.serves(l.primary, "db."+zone, dns.TypeA, "192.0.2.12")
	})
}

// What the network does to an update is settled by looking.
func TestNetwork(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		x := newTap(t, l.primary)
		n := l.node("a", node4, l.config(m{"server": x.at, "timeout": "1s"}))
		term := sdk.Term(0)
		for _, c := range []struct {
			name  string
			deed  deed
			times int
			want  sdk.Outcome
			words string
		}{
			{"its answer is lost", deed{deaf: true}, 1, sdk.OutcomeDone, "as all servers of the zone serve"},
			{"it is lost", deed{lose: true}, 2, sdk.OutcomeDone, "as all servers of the zone serve"},
			{"it is always lost", deed{lose: true}, 1000, sdk.OutcomeUnknown, "it is not known whether the update was done: name server " + x.at},
			{"garbage comes", deed{answer: []byte("garbage, garbage")}, 1000, sdk.OutcomeUnknown, "it is not known whether the update was done"},
			{"the answer is not signed", deed{strip: true}, 1, sdk.OutcomeDone, "as all servers of the zone serve"},
			{"it fails once", deed{rcode: dns.RcodeServerFailure}, 1, sdk.OutcomeDone, "as all servers of the zone serve"},
			{"it fails", deed{rcode: dns.RcodeServerFailure}, 1000, sdk.OutcomeUnchanged, "it could not (SERVFAIL): its log tells why"},
			{"it takes no updates", deed{rcode: dns.RcodeNotImplemented}, 1, sdk.OutcomeUnchanged, "does not take dynamic updates (NOTIMP)"},
			{"it says something else", deed{rcode: dns.RcodeNotZone}, 1, sdk.OutcomeUnchanged, "is not the primary of a zone of that name (NOTZONE)"},
		} {
			term++
			var seen atomic.Int32
			x.does(func(update bool) deed {
				if update && int(seen.Add(1)) <= c.times {
					return c.deed
				}
				return deed{}
			})
			r := n.act(sdk.Promote, term)
			if r.Outcome != c.want || !strings.Contains(r.Detail, c.words) {
				t.Errorf("%s: got %+v, want %s with %q", c.name, r, c.want, c.words)
			}
			if seen.Load() == 0 {
				t.Errorf("%s: no update was sent", c.name)
			}
			x.does(func(bool) deed { return deed{} })
		}

		// The name server takes the update, and is not seen again.
		n.configure(l.config(m{"server": x.at, "timeout": "1s", "on_demote": "delete"}))
		for _, a := range []sdk.Action{sdk.Demote, sdk.Promote} {
			term++
			var taken atomic.Bool
			x.does(func(update bool) deed {
				if update {
					taken.Store(true)
				}
				return deed{lose: taken.Load() && !update}
			})
			says(t, n.act(a, term), sdk.OutcomeUnknown, "the name server took the update, and what it came to is not seen")
			x.does(func(bool) deed { return deed{} })
		}

		// No question is answered with a signature.
		x.does(func(bool) deed { return deed{strip: true} })
		says(t, n.act(sdk.Promote, term+1), sdk.OutcomeUnchanged, "its answer is not signed, so that it proves nothing")
		// It hangs.
		x.does(func(bool) deed { return deed{before: func() { time.Sleep(1500 * time.Millisecond) }} })
		says(t, n.act(sdk.Promote, term+2), sdk.OutcomeUnchanged, "no answer within 1s")
	})
}

// With delete, what this node has published goes when it leaves the role.
func TestDelete(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		del := m{"on_demote": "delete", "timeout": "1s"}
		a, b := l.node("a", node4, l.config(del)), l.node("b", "192.0.2.12", l.config(del))
		a.comes(sdk.Demote, 0, sdk.OutcomeAlready, "no record is of this node")
		a.comes(sdk.Promote, 1, sdk.OutcomeDone)
		a.comes(sdk.Demote, 1, sdk.OutcomeDone, "no record is of this node any more")
		for _, at := range []string{l.primary, l.secondary} {
			l.serves(at, "db."+zone, dns.TypeA, "nothing")
			l.serves(at, "_deputy.db."+zone, dns.TypeTXT, `"term=1" "node=a" "service=orders" "left=1"`)
		}
		a.comes(sdk.Demote, 1, sdk.OutcomeAlready)
		a.comes(sdk.Promote, 1, sdk.OutcomeDone) // an undone hand-over
		l.serves(l.primary, "db."+zone, dns.TypeA, node4)
		a.comes(sdk.Demote, 1, sdk.OutcomeDone)

		// Another's records stay.
		b.comes(sdk.Promote, 2, sdk.OutcomeDone)
		a.comes(sdk.Demote, 2, sdk.OutcomeAlready)
		l.serves(l.primary, "db."+zone, dns.TypeA, "192.0.2.12")

		// An update of before that is still on its way comes to nothing.
		holds := owner{term: 2, node: "b", service: "orders"}
		a.comes(sdk.Demote, 3, sdk.OutcomeDone)
		x := l.signed()
		defer x.hangUp()
		err := x.replace(t.Context(), "_deputy.db."+zone+".", &holds, owner{term: 3, node: "a", service: "orders"}, []set{setOfDB(t, node4)})
		if effectOf(err) != changed {
			t.Errorf("an update from before the demotion: got %v", err)
		}
		l.serves(l.primary, "db."+zone, dns.TypeA, "192.0.2.12")
		a.comes(sdk.Demote, 3, sdk.OutcomeAlready)
		// Whoever knows of no such term is too late.
		c := l.node("c", "192.0.2.13", l.config(del))
		c.comes(sdk.Promote, 2, sdk.OutcomeStaleTerm, "is of term 3, published by b in term 2, and this is term 2")

		// A frozen name server: a forced demotion does not wait for it.
		b.comes(sdk.Promote, 4, sdk.OutcomeDone)
		l.freeze(l.primary)
		forced := b.transition(sdk.Demote, 4)
		forced.Mode, forced.LeaseUntil = sdk.Forced, 0
		began := time.Now()
		says(t, b.do(forced), sdk.OutcomeDone, "the records stay until the next primary replaces them")
		t.Logf("a forced demotion with a frozen name server took %s", time.Since(began))
		if took := time.Since(began); took > 2*time.Second { // the bound is 300ms, where the processors are free
			t.Errorf("a forced demotion took %s", took)
		}
		b.comes(sdk.Demote, 4, sdk.OutcomeUnchanged, "no answer within 1s")
		l.unfreeze(l.primary)
		b.comes(sdk.Demote, 4, sdk.OutcomeDone)
		l.serves(l.primary, "db."+zone, dns.TypeA, "nothing")
	})
}

// All kinds of records change in one message: the zone's serial grows by one.
func TestRecords(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		config := l.config(m{"ttl": "30s", "records": []any{
			m{"name": "db." + zone},
			m{"name": "db." + zone, "value": "192.0.2.200"},
			m{"name": "db." + zone, "type": "AAAA", "value": node6},
			m{"name": "www." + zone, "type": "CNAME", "value": "{node}.nodes." + zone},
			m{"name": "_db._tcp." + zone, "type": "SRV", "value": "{node}.nodes." + zone, "port": 3306, "priority": 10, "weight": 5},
		}})
		serial := func() uint32 {
			x, err := l.look(l.primary, zone, dns.TypeSOA)
			if err != nil {
				t.Fatal(err)
			}
			return x.records[0].(*dns.SOA).Serial
		}
		for i, name := range []string{"a", "b"} {
			n := l.node(name, "192.0.2.1"+string(rune('1'+i)), config)
			before := serial()
			n.comes(sdk.Promote, sdk.Term(i+1), sdk.OutcomeDone, "as all servers of the zone serve")
			if got := serial(); got != before+1 {
				t.Errorf("the serial went from %d to %d, want one more", before, got)
			}
			for _, at := range []string{l.primary, l.secondary} {
				l.serves(at, "db."+zone, dns.TypeA, "192.0.2.1"+string(rune('1'+i))+", 192.0.2.200")
				l.serves(at, "db."+zone, dns.TypeAAAA, node6)
				l.serves(at, "www."+zone, dns.TypeCNAME, name+".nodes.example.test.")
				l.serves(at, "_db._tcp."+zone, dns.TypeSRV, "10 5 3306 "+name+".nodes.example.test.")
			}
			n.comes(sdk.Promote, sdk.Term(i+1), sdk.OutcomeAlready)
		}
		x, err := l.look(l.primary, "db."+zone, dns.TypeA)
		if err != nil || x.ttl != 30 {
			t.Errorf("the ttl is %d, %v", x.ttl, err)
		}
	})
}
