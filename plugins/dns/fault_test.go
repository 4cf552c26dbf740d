package main

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
)

type (
	m  = map[string]any
	m2 = map[string]string
)

func one(name string, more ...m) m {
	r := m{"name": name + "." + zone}
	for _, x := range more {
		for k, v := range x {
			r[k] = v
		}
	}
	return m{"records": []any{r}}
}

// What a name server has against a promotion is told with the server, the zone
// and the cure, and changes nothing.
func TestFaults(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		n := l.node("a", node4, l.config())
		for _, c := range []struct {
			name  string
			with  m
			words m2 // "" for all brands
		}{
			{"unknown key", m{"tsig": m{"name": "nobody", "secret": secret}}, m2{"": "does not take the key nobody. with hmac-sha256 (BADKEY): correct tsig or server"}},
			{"other algorithm", m{"tsig": m{"name": "deputy", "secret": secret, "algorithm": "hmac-sha512"}}, m2{"": "does not take the key deputy. with hmac-sha512"}},
			{"bad secret", m{"tsig": m{"name": "deputy", "secret": otherSecret}}, m2{"": "has another secret for the key deputy. (BADSIG): correct tsig.secret"}},
			{"key without rights", m{"tsig": m{"name": "other", "secret": secret}}, m2{"bind": "does not let the key other. change these records (REFUSED): grant it", "knot": "give it that key and let it do this"}},
			{"name not granted", one("ns1"), m2{"bind": "does not let the key deputy. change these records (REFUSED)", "knot": "let it do this"}},
			{"wrong zone", m{"zone": "example.org", "records": []any{m{"name": "db.example.org"}}}, m2{"": "does not answer for the zone (REFUSED): correct zone or server"}},
			{"zone below the zone", m{"zone": "db." + zone}, m2{"": "correct zone or server"}},
			{"a secondary", m{"server": l.secondary}, m2{"bind": "correct server", "knot": "correct tsig or server"}},
			{"foreign TXT", one("foreign"), m2{"": "no owner record"}},
		} {
			n.configure(l.config(c.with))
			r := n.act(sdk.Promote, 1)
			words := c.words[""] + c.words[l.brand.name]
			says(t, r, sdk.OutcomeUnchanged, words, "name server 127.", ", zone ")
			if !r.Refused {
				t.Errorf("%s: to be asked again: %+v", c.name, r)
			}
			t.Logf("%s: %s", c.name, r.Detail)
			n.check(sdk.RoleStandby, false, words)
		}
		for _, name := range []string{"db", "ns1"} {
			x, err := l.look(l.primary, name+"."+zone, dns.TypeA)
			if err != nil || x.values() == node4 {
				t.Errorf("after all that, %s is %s, %v", name, x.values(), err)
			}
		}

		// Another service's names.
		n.configure(l.config())
		n.check(sdk.RoleStandby, true, "nobody has")
		n.comes(sdk.Promote, 1, sdk.OutcomeDone)
		stranger := l.node("b", "192.0.2.12", l.config())
		tr := stranger.transition(sdk.Promote, 5)
		s := setup("b", l.config())
		s.Service, tr.Service = "billing", "billing"
		if err := stranger.hosted.Configure(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		says(t, stranger.do(tr), sdk.OutcomeUnchanged, "is of service orders: give each service names of its own")

		// No address for the record.
		n.configure(l.config(one("db", m{"type": "AAAA"})))
		says(t, n.act(sdk.Promote, 1), sdk.OutcomeUnchanged, "this node's address 192.0.2.11 is none for it: set value")

		// The lease is over.
		late := n.transition(sdk.Promote, 2)
		late.LeaseUntil = sdk.Now()
		says(t, n.do(late), sdk.OutcomeUnchanged, "the lease does not hold any more")
	})
}

// Clocks that differ by more than signatures allow.
func TestClockSkew(t *testing.T) {
	for _, b := range brands() {
		t.Run(b.name, func(t *testing.T) {
			l := newLab(t, b)
			for off, words := range map[time.Duration]string{
				10 * time.Minute:  "finds that this node's clock is 10m0s ahead of its own (BADTIME): have both keep time by NTP",
				-10 * time.Minute: "finds that this node's clock is 10m0s behind its own (BADTIME)",
				2 * time.Minute:   "",
			} {
				t.Setenv("HOME", "/clock/"+off.String())
				n := l.node("a", node4, l.config())
				if words == "" {
					n.comes(sdk.Promote, 1, sdk.OutcomeDone)
					continue
				}
				r := n.act(sdk.Promote, 1)
				if off := words[:20]; r.Outcome != sdk.OutcomeUnchanged || !r.Refused {
					t.Errorf("%s: got %+v", off, r)
				}
				saysRounded(t, r.Detail, words)
				n.check(sdk.RoleStandby, false, "BADTIME")
			}
		})
	}
}

// saysRounded is for words with a time that may be a second off.
func saysRounded(t *testing.T, got, words string) {
	t.Helper()
	for _, near := range []string{"10m0s", "10m1s", "9m59s"} {
		if strings.Contains(got, strings.ReplaceAll(words, "10m0s", near)) {
			return
		}
	}
	t.Errorf("it says %q, want %q in it", got, words)
}

// A name server that cannot be reached, and one that is frozen.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		n := l.node("a", node4, l.config(m{"timeout": "1s"}))
		n.comes(sdk.Promote, 1, sdk.OutcomeDone)
		l.freeze(l.primary)
		r := n.act(sdk.Promote, 2)
		says(t, r, sdk.OutcomeUnchanged, "name server "+l.primary, "zone "+zone, "no answer within 1s")
		if r.Refused {
			t.Errorf("not to be asked again: %+v", r)
		}
		n.check(sdk.RolePrimary, true, "warning: not seen what is served")
		n.check(sdk.RoleStandby, false, "could not publish")
		l.unfreeze(l.primary)
		n.comes(sdk.Promote, 2, sdk.OutcomeDone)
		l.stop(l.primary)
		says(t, n.act(sdk.Promote, 3), sdk.OutcomeUnchanged, "cannot be reached", "start it, let TCP to it through, or correct server")
		n.check(sdk.RolePrimary, true, "warning: not seen what is served")
	})
}

// A secondary that does not follow is told, and fails a promotion only where
// that is wanted.
func TestSecondaryLate(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		short := m{"verify_timeout": "300ms", "timeout": "500ms"}
		n := l.node("a", node4, l.config(short))
		for term, stop := range []func(string){l.freeze, l.stop} {
			stop(l.secondary)
			n.comes(sdk.Promote, sdk.Term(term+1), sdk.OutcomeDone, "at "+l.primary+"; but name server "+l.secondary, "zone "+zone)
			n.check(sdk.RolePrimary, true, "warning: not served everywhere: name server "+l.secondary)
			l.serves(l.primary, "db."+zone, dns.TypeA, node4)
		}
		n.configure(l.config(short, m{"on_unverified": "fail"}))
		n.comes(sdk.Promote, 3, sdk.OutcomeUnknown, "but not everywhere: name server "+l.secondary)
		l.serves(l.primary, "db."+zone, dns.TypeA, node4)
	})
}

// A secondary that is there and was not told is waited for, and named.
func TestUnnotified(t *testing.T) {
	t.Parallel()
	b := brands()[1]
	plain := b.config
	b.config = func(l *lab, primary bool) string {
		return strings.ReplaceAll(plain(l, primary), "    notify: secondary\n", "")
	}
	l := newLab(t, b)
	n := l.node("a", node4, l.config(m{"verify_timeout": "200ms", "notify": false}))
	n.comes(sdk.Promote, 1, sdk.OutcomeDone, "db.example.test. A is nothing there, not 192.0.2.11: see that it is notified of changes and may transfer the zone (not within 200ms)")
	// The plugin's own notification does.
	n.configure(l.config())
	n.comes(sdk.Promote, 2, sdk.OutcomeDone, "as all servers of the zone serve")
	l.serves(l.secondary, "_deputy.db."+zone, dns.TypeTXT, `"term=2" "node=a" "service=orders"`)
}

// A record that excludes ours is in the way: RFC 2136 has the server pass ours
// by without a word.
func TestInTheWay(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		n := l.node("a", node4, l.config(one("alias")))
		n.comes(sdk.Promote, 1, sdk.OutcomeUnknown, "alias.example.test. A is nothing there, not 192.0.2.11: a record that excludes this one is in the way, as a CNAME does")
	})
}

// Without verify the zone's own NS records tell who has to serve.
func TestServersOfTheZone(t *testing.T) {
	t.Parallel()
	l := newLab(t, brands()[1])
	config := l.config(m{"verify_timeout": "5s"})
	delete(config, "verify")
	n := l.node("a", node4, config)
	n.comes(sdk.Promote, 1, sdk.OutcomeDone, "as all servers of the zone serve")
	for _, at := range []string{l.primary, l.secondary} {
		x, err := l.look(at, "db."+zone, dns.TypeA)
		if err != nil || x.values() != node4 {
			t.Errorf("%s has %s, %v", at, x.values(), err)
		}
	}
	l.stop(l.secondary)
	n.check(sdk.RolePrimary, true, "warning: not served everywhere: name server "+l.secondary)
}

// A name server outside of the zone is found as the host finds it.
func TestServerElsewhere(t *testing.T) {
	t.Parallel()
	p := &publisher{settings: settings{Zone: zone + ".", Timeout: 5 * time.Second}}
	a, err := p.addressOf(t.Context(), nil, "localhost.")
	if err != nil || !a.IsLoopback() {
		t.Errorf("localhost is at %s, %v", a, err)
	}
}

// Somebody else's change is told, and moves no role.
func TestChangedByHand(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		n := l.node("a", node4, l.config())
		n.comes(sdk.Promote, 1, sdk.OutcomeDone)
		other := set{name: "db." + zone + ".", kind: dns.TypeA, ttl: 10}
		other.records = []dns.RR{rr(t, "db."+zone+". 10 A 192.0.2.99")}
		l.update(t, owner{term: 1, node: "a", service: "orders"}, owner{term: 1, node: "a", service: "orders"}, other)
		l.serves(l.secondary, "db."+zone, dns.TypeA, "192.0.2.99")
		n.check(sdk.RolePrimary, true, "warning: not served everywhere: name server "+l.primary+", zone example.test.: db.example.test. A is 192.0.2.99 there, not 192.0.2.11")
		// The next promotion of the same term mends it.
		n.comes(sdk.Promote, 1, sdk.OutcomeDone)
		l.serves(l.secondary, "db."+zone, dns.TypeA, node4)
		n.check(sdk.RolePrimary, true, "as all servers of the zone serve")
	})
}

func rr(t *testing.T, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
