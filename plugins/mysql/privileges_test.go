package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

// With just the grants of the README all acts work, as all other tests show.
// With one less, the check, a promotion and a demotion name what is missing and
// what to type.
func TestEachGrantIsNeeded(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		h := newHosts(t, k, 1)[0]
		p := h.plugin()
		for i, p0 := range k.flavour.privileges() {
			line := grants(k.flavour)[i]
			if !strings.Contains(readme, strings.Split(p0.name, " ON ")[0]) {
				t.Errorf("README.md does not have %s", p0.name)
			}
			h.errs(strings.Replace(strings.Replace(line, "GRANT", "REVOKE", 1), " TO ", " FROM ", 1))
			name, on, found := strings.Cut(p0.name, " ON ")
			if !found {
				on = "*.*"
			}
			want := fmt.Sprintf("GRANT %s ON %s TO deputy@localhost;", name, on)
			if err := h.try(p, h.transition(sdk.Promote, nil)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("without %s a promotion said %v, want %q", p0.name, err, want)
			}
			if health, err := p.Check(t.Context(), sdk.RoleStandby); err != nil || health.Fit || !strings.Contains(health.Detail, want) {
				t.Errorf("without %s the check said %+v, %v", p0.name, health, err)
			}
			if err := h.try(p, h.transition(sdk.Demote, nil)); err == nil || !strings.Contains(err.Error(), "GRANT ") {
				t.Errorf("without %s a demotion said %v", p0.name, err)
			}
			if !h.readOnly() {
				t.Errorf("without %s it became writable", p0.name)
			}
			h.errs(line)
		}
		h.act(p, h.transition(sdk.Promote, nil))
		h.act(p, h.transition(sdk.Demote, nil))
	})
}

// An account that the server does not know is told what to look at.
func TestWrongPassword(t *testing.T) {
	h := newHosts(t, kinds(t)[0], 1)[0]
	p := h.plugin(func(s *settings) { s.Password = "wrong" })
	health, err := p.Check(t.Context(), sdk.RoleStandby)
	if err != nil || health.Fit || !strings.Contains(health.Detail, `see "What it needs"`) || strings.Contains(health.Detail, "wrong") {
		t.Errorf("got %+v, %v", health, err)
	}
}
