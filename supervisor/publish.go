package supervisor

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// candidacy returns this node's record as it should be now. The caller holds mu.
func (m *Member) candidacy() Candidate {
	fit, said := m.fitness()
	if warnings := m.warnings(); warnings != nil {
		said = strings.TrimPrefix(said+"; "+strings.Join(warnings, "; "), "; ")
	}
	c := Candidate{
		Node: m.node, Priority: m.service.Priority, Role: m.role, Since: m.since,
		Fit: fit, Health: said, Verdict: m.verdict, Hash: m.service.Hash,
		Held: m.held > m.clock.Now(),
	}
	if m.lease != nil {
		c.Term = m.lease.Term()
	}
	if !m.ends {
		c.Positions, c.Ballot = m.positions()
	}
	return c
}

// calm is how long what only people read waits for more of it: while a role
// moves, etcd and this machine have better to do.
const calm = 100 * time.Millisecond

// publish keeps this node's record as it should be. Positions alone do not
// make it write more often than once a TTL, except when they are asked for.
func (m *Member) publish(ctx context.Context) {
	var last Candidate
	var at, news time.Time // written; something for people to read has changed since
	for ctx.Err() == nil {
		m.mu.Lock()
		c, changed := m.candidacy(), m.changed
		m.mu.Unlock()

		quiet := c
		quiet.Positions = last.Positions
		moved := !maps.Equal(c.Positions, last.Positions)
		wait := m.timing.TTL
		switch {
		case same(quiet, last):
			news = time.Time{}
		case news.IsZero():
			news = time.Now()
		}
		switch due := !news.IsZero() && time.Since(news) >= calm; {
		case at.IsZero(), due, !same(quiet.plain(), last.plain()), moved && time.Since(at) >= m.timing.TTL:
			err := m.elector.Publish(ctx, c)
			if err == nil {
				last, at, news = c, time.Now(), time.Time{}
				continue
			}
			m.log.Debug("presence not published", "cause", err) // that etcd is gone, observe tells
			wait = m.timing.Renew
		case !news.IsZero():
			wait = calm - time.Since(news)
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
			if wait == m.timing.Renew { // do not hurry after a failure
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			}
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// plain is what of a candidacy others decide by.
func (c Candidate) plain() Candidate {
	c.Verdict, c.Health, c.Since, c.Term = "", "", time.Time{}, 0
	if c.Role != sdk.RoleCandidate {
		c.Role = sdk.RoleUnknown
	}
	return c
}

func same(a, b Candidate) bool {
	ap, bp := a.Positions, b.Positions
	a.Positions, b.Positions = nil, nil
	return maps.Equal(ap, bp) && a.Node == b.Node && a.Priority == b.Priority && a.Role == b.Role &&
		a.Term == b.Term && a.Since.Equal(b.Since) && a.Fit == b.Fit && a.Health == b.Health &&
		a.Verdict == b.Verdict && a.Held == b.Held && a.Ballot == b.Ballot && a.Hash == b.Hash
}

// think keeps the verdict for people to see.
func (m *Member) think(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.verdict != why {
		m.verdict = why
		m.tell()
	}
}

// sitOut begins a hold-off: this node goes last for so long.
func (m *Member) sitOut(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = max(m.held, m.clock.Now().Add(d))
}

// peers are the nodes of the service as others reach them.
func peers(s State) []sdk.Peer {
	var ps []sdk.Peer
	for _, c := range s.Candidates {
		ps = append(ps, c.Peer())
	}
	return ps
}
