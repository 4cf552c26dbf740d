package e2e

import (
	"errors"
	"strings"
	"time"
)

// handedOver is less than it takes when the role has to expire.
const handedOver = 2 * time.Second

// poweroff shuts the primary down by a command.
func poweroff(args ...string) func(s *scene) {
	return func(s *scene) {
		what := strings.Join(args, " ")
		for range runs() {
			from, _ := s.primary()
			s.shutDown(what, from, args...)
		}
		s.bound(what+silent, 0, handedOver)
	}
}

// shutDown shuts a primary down, measures, and boots it again.
func (s *scene) shutDown(what string, from *host, args ...string) {
	s.Helper()
	_, before := s.primary()
	began := now()
	_, _ = from.run(s.ctx, args...) // the connection may end with the host
	if err := from.awaitOff(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.figures.add(s.systemd, what+": the host is off after", now()-began)
	s.moved(before)
	s.outage(what, began)
	if err := s.boot(s.ctx, from); err != nil {
		s.Fatal(err)
	}
	s.primary()
}

// poweroffAlone shuts a primary down on which nobody runs that could delay it.
func poweroffAlone(s *scene) {
	const what = "poweroff.target without logind"
	for range runs() {
		from, before := s.primary()
		began := now()
		s.ok(from, "systemctl", "mask", "--runtime", "--now", "systemd-logind.service")
		s.kept("logind goes", from, uint64(before.Term), began)
		s.shutDown(what, from, "systemctl", "start", "--no-block", "poweroff.target")
	}
	s.bound(what+silent, 0, handedOver)
}

// reboot boots the primary again.
func reboot(s *scene) {
	for range runs() {
		from, before := s.primary()
		began := now()
		_, _ = from.run(s.ctx, "systemctl", "reboot")
		// The machine goes off: what turns it on again is outside of it.
		if err := from.awaitOff(s.ctx); err != nil {
			s.Fatal(err)
		}
		if err := s.boot(s.ctx, from); err != nil {
			s.Fatal(err)
		}
		s.figures.add(s.systemd, "reboot: the host is up after", now()-began)
		s.moved(before)
		s.outage("reboot", began)
	}
	s.bound("reboot"+silent, 0, handedOver)
}

// The power of the primary fails.
func losePower(s *scene) {
	for range runs() {
		from, before := s.primary()
		began := now()
		if err := from.lose(s.ctx); err != nil {
			s.Fatal(err)
		}
		s.moved(before)
		s.outage("power loss", began)
		if err := s.boot(s.ctx, from); err != nil {
			s.Fatal(err)
		}
		s.primary()
	}
	// The lease has to expire; then vip looks for another holder.
	s.bound("power loss"+silent, ttl+200*time.Millisecond, ttl+time.Second)
}

// The power of the primary fails while all that it runs is frozen; it boots as
// any other host.
func losePowerFrozen(s *scene) {
	from, before := s.primary()
	if err := from.freezeAll(true); err != nil {
		s.Fatal(err)
	}
	if err := from.lose(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.moved(before)
	if err := s.boot(s.ctx, from); err != nil {
		s.Fatal(err)
	}
	s.primary()
}

// Everything of deputy on the primary is frozen, and systemd with it: nothing
// but the kernel is left to silence the address. When it goes on, it is late.
func freezeHost(s *scene) {
	const what = "supervisor, plugins, gate and systemd frozen"
	for range runs() {
		from, before := s.primary()
		began := now()
		if err := from.freeze(true); err != nil {
			s.Fatal(err)
		}
		frozen := now()
		_, err := s.orders.until(s.ctx, before.Term, s.orders.isServed)
		longest := s.orders.LastAsked(from.name) - frozen
		if err := errors.Join(err, from.freeze(false)); err != nil {
			s.Fatal(err)
		}
		s.outage(what, began)
		s.figures.add(s.systemd, what+": the last answer of the old primary after", longest)
		if longest > ttl*95/100 {
			s.Errorf("%s answered for %s after it was frozen, want at most 0.95 of the ttl", from.name, longest)
		}
		s.primary()
	}
	s.bound(what+silent, 0, ttl+time.Second)
}
