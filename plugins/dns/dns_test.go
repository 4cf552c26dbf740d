package main

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/deputy-ha/deputy/sdk"
)

// The name moves with the role, at all servers of the zone.
func TestPublish(t *testing.T) {
	t.Parallel()
	forBrands(t, func(t *testing.T, l *lab) {
		a, b := l.node("a", node4, l.config()), l.node("b", "192.0.2.12", l.config())
		a.comes(sdk.Demote, 0, sdk.OutcomeAlready, "the records stay")
		a.check(sdk.RoleStandby, true, "nobody has")
		a.comes(sdk.Promote, 1, sdk.OutcomeDone, "db.example.test. A 192.0.2.11, as all servers of the zone serve")
		for _, at := range []string{l.primary, l.secondary} {
			l.serves(at, "db."+zone, dns.TypeA, "192.0.2.11")
			l.serves(at, "_deputy.db."+zone, dns.TypeTXT, `"term=1" "node=a" "service=orders"`)
		}
		a.comes(sdk.Promote, 1, sdk.OutcomeAlready)
		a.check(sdk.RolePrimary, true, "as all servers of the zone serve")
		b.check(sdk.RoleStandby, true, "a has in term 1")
		b.comes(sdk.Promote, 2, sdk.OutcomeDone)
		for _, at := range []string{l.primary, l.secondary} {
			l.serves(at, "db."+zone, dns.TypeA, "192.0.2.12")
		}
		a.comes(sdk.Promote, 1, sdk.OutcomeStaleTerm, "of term 2, published by b in term 2, and this is term 1")
		l.serves(l.primary, "db."+zone, dns.TypeA, "192.0.2.12")
		a.check(sdk.RolePrimary, false, "knows of term 2, published by b in term 2, and this node has published in term 1")
	})
}
