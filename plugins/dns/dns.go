package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A publisher is records with one set of settings. What counts is what the name
// servers have, which outlives this process.
type publisher struct {
	settings
	service, node string
	log           *slog.Logger
	now           func() time.Time

	published atomic.Pointer[tenure] // what Check compares with; nil when nothing is published by this process
	rights    atomic.Int64           // the sdk.Instant when the key was seen to have them; zero when not yet
}

// A tenure is what was published for a term.
type tenure struct {
	term sdk.Term
	sets []set
}

// primary is the zone's primary name server.
func (p *publisher) primary() server {
	s := p.unsigned(p.Server)
	s.key = &p.TSIG
	return s
}

// Promote has the records point to this node.
func (p *publisher) Promote(ctx context.Context, t *sdk.Transition) error {
	self := t.Primary
	if self.Node == "" {
		self.Node = p.node
	}
	if t.LeaseUntil <= sdk.Now() {
		return sdk.Refuse(errors.New("the lease does not hold any more"))
	}
	want, err := p.setsOf(self)
	if err != nil {
		return sdk.Refuse(err)
	}
	l := p.primary().line()
	defer l.hangUp()
	already, err := p.claim(ctx, l, owner{term: t.Term, node: p.node, service: p.service}, want)
	if err != nil {
		return fmt.Errorf("publish %s: %w", list(want), err)
	}
	p.published.Store(&tenure{t.Term, want})
	late := p.verify(ctx, l, want, p.VerifyTimeout)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("published at %s, and not seen elsewhere yet: %w", p.Server, context.Cause(ctx))
	case late != nil && p.OnUnverified == "fail":
		return fmt.Errorf("published at %s, but not everywhere: %w", p.Server, late)
	case late != nil:
		p.log.Warn("not all servers of the zone serve the records yet", "zone", string(p.Zone), "cause", late)
	}
	words := fmt.Sprintf("%s, as all servers of the zone serve", list(want))
	if late != nil {
		words = fmt.Sprintf("%s at %s; but %s", list(want), p.Server, oneLine(late))
	}
	if already {
		return fmt.Errorf("%s: %w", words, sdk.ErrAlready)
	}
	sdk.Note(ctx, "%s", words)
	return nil
}

// oneLine is a joined error in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// An update whose answer is lost, or whose owner record has changed meanwhile,
// is settled by looking, and tried again this often.
const (
	tries    = 5
	tryAgain = 20 * time.Millisecond
)

// claim makes the sets and their owner what they should be. It reports whether
// they were.
func (p *publisher) claim(ctx context.Context, l *line, self owner, want []set) (already bool, err error) {
	var sent updates
	for try := range tries {
		if try > 0 && !pause(ctx, tryAgain) {
			break
		}
		holds, err := l.owner(ctx, p.owner())
		if err != nil {
			return false, sent.verdict(err)
		}
		if holds != nil && holds.service != self.service {
			return false, sdk.Refuse(p.ofAnother(holds))
		}
		if holds != nil && holds.outranks(self.term, self.node) {
			return false, sdk.Stale(fmt.Errorf("the owner record %s is of term %d, published by %s in term %d, and this is term %d: there is a newer primary; if terms began anew, as with a new etcd, remove that record by nsupdate", p.owner(), holds.newest(), holds.node, holds.term, self.term))
		}
		if holds != nil && *holds == self {
			lacks, err := l.lacking(ctx, want, true)
			switch {
			case err != nil:
				return false, sent.verdict(err)
			case lacks == "":
				return try == 0, nil
			case sent.last == nil && try > 0: // this update was taken
				return false, fmt.Errorf("name server %s, zone %s: took the update, but %s: a record that excludes this one is in the way, as a CNAME does (RFC 2136, 3.4.2.2): remove it", l.at, l.zone, lacks)
			}
		}
		if !sent.add(l.replace(ctx, p.owner(), holds, self, want)) {
			break
		}
	}
	return false, sent.end(ctx)
}

// errTaken is the doubt about an update that was taken, and not seen since.
var errTaken = errors.New("the name server took the update")

// updates are what an act's updates have come to so far. In doubt is one who has
// sent an update whose answer never came, and has not seen that it was done,
// and one whose update was taken, which nothing has shown since.
type updates struct {
	last  error // why the last one did not do; nil when it did
	doubt error // whether one may yet be done
}

// add takes in what an update came to, and reports whether another is of use.
func (u *updates) add(err error) (again bool) {
	u.last = err
	switch effectOf(err) {
	case unsent, refused:
		return false
	case lost:
		u.doubt = err
	case done:
		u.doubt = errTaken
	}
	return true
}

// end is what an act has to return that is done with trying.
func (u *updates) end(ctx context.Context) error {
	if u.last == nil {
		return u.verdict(context.Cause(ctx))
	}
	return u.verdict(u.last)
}

// verdict is what an act has to return for a fault.
func (u *updates) verdict(err error) error {
	if u.doubt == errTaken { //nolint:errorlint // this very one
		return fmt.Errorf("%w, and what it came to is not seen: %w", errTaken, err)
	}
	if u.doubt != nil {
		if err != u.doubt { //nolint:errorlint // this very one
			err = fmt.Errorf("%w; before: %w", err, u.doubt)
		}
		return fmt.Errorf("it is not known whether the update was done: %w", err)
	}
	switch effectOf(err) {
	case unsent, failed, changed:
		return sdk.Unchanged(err)
	case refused:
		return sdk.Refuse(err)
	}
	return err
}

// pause reports whether there is still time.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Demote leaves the records to the next primary, or removes them. Clients that
// know them go on using them either way.
func (p *publisher) Demote(ctx context.Context, t *sdk.Transition) error {
	p.published.Store(nil)
	if p.OnDemote == "keep" {
		return fmt.Errorf("the records stay until the next primary replaces them: %w", sdk.ErrAlready)
	}
	if t.Mode == sdk.Forced {
		ctx, cancel := context.WithTimeoutCause(ctx, tidyingBound, errors.New("a forced demotion has no more time"))
		defer cancel()
		err := p.remove(ctx, t)
		if err != nil && !errors.Is(err, sdk.ErrAlready) {
			// A name is no fence, and whoever follows replaces the records.
			p.log.Warn("the records stay", "cause", err)
			sdk.Note(ctx, "the records stay until the next primary replaces them: %s", oneLine(err))
			return nil
		}
		return err
	}
	return p.remove(ctx, t)
}

// remove takes the records away that this node has published, and sees to it
// that no update of its own that is still on its way is done after that: such
// an update expects the owner record as it was.
func (p *publisher) remove(ctx context.Context, t *sdk.Transition) error {
	l := p.primary().line()
	defer l.hangUp()
	gone := p.empty()
	var sent updates
	for try := range tries {
		if try > 0 && !pause(ctx, tryAgain) {
			break
		}
		holds, err := l.owner(ctx, p.owner())
		if err != nil {
			return sent.verdict(err)
		}
		now, own := p.leaving(holds, t.Term)
		var sets []set // another's stay
		lacks := ""
		if own {
			sets = gone
			if lacks, err = l.lacking(ctx, gone, false); err != nil {
				return sent.verdict(err)
			}
		}
		if lacks == "" && (holds == nil && now.left == 0 || holds != nil && *holds == now) {
			late := p.goneEverywhere(ctx, l, sets)
			if try == 0 {
				return fmt.Errorf("no record is of this node%s: %w", late, sdk.ErrAlready)
			}
			sdk.Note(ctx, "no record is of this node any more%s", late)
			return nil
		}
		if !sent.add(l.replace(ctx, p.owner(), holds, now, sets)) {
			break
		}
	}
	return sent.end(ctx)
}

// leaving is what the owner record has to become when this node leaves the role
// in term t, and whether the records are this node's. Where an update of this
// node may be on its way, the record changes.
func (p *publisher) leaving(holds *owner, t sdk.Term) (now owner, own bool) {
	if holds == nil {
		return owner{service: p.service, left: t}, false
	}
	now = *holds
	if now.service != p.service {
		return now, false
	}
	own = now.node == p.node
	switch {
	case own:
		now.left = max(now.left, now.term, t)
	case now.term < t:
		now.left = max(now.left, t)
	}
	return now, own
}

// goneEverywhere waits until the sets are gone from all servers, and says where
// they are not.
func (p *publisher) goneEverywhere(ctx context.Context, l *line, gone []set) string {
	if len(gone) == 0 {
		return ""
	}
	if late := p.verify(ctx, l, gone, p.VerifyTimeout); late != nil {
		p.log.Warn("not all servers of the zone have removed the records yet", "zone", string(p.Zone), "cause", late)
		return "; but " + oneLine(late)
	}
	return ""
}
