package sdktest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/deputy-ha/deputy/sdk"
)

// Promote has this node, a standby, win the vacant role and promote: for the
// reason election where the primary before has resigned or there was none, for
// failover where it was lost. It returns what the promote came to, after its
// retries. With a failure the node has left the role again when it returns. It
// may be called in a goroutine, to have something happen while it runs.
func (s *Supervisor) Promote() sdk.Result {
	s.t.Helper()
	defer s.step()()
	s.must("Promote", sdk.RoleStandby)
	reason, cause := sdk.ReasonElection, errors.New("there was no primary")
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	switch {
	case !last.resigned:
		reason, cause = sdk.ReasonFailover, fmt.Errorf("%s was lost: its lease ran out", last.Node)
	case last.term != 0 && last.Node != "":
		cause = fmt.Errorf("%s resigned", last.Node)
	}
	return s.promoting(s.win(cause), reason, cause)
}

// Failover has the primary on another node be lost, and this node, a standby, win
// the role where the service wants a lost primary fenced (on_unclean = "fence"):
// a plugin that can fence is asked for that first. It returns what the promote
// came to, or the fence where that failed; the role is then left again.
func (s *Supervisor) Failover(victim string) sdk.Result {
	s.t.Helper()
	defer s.step()()
	s.must("Failover", sdk.RoleStandby)
	lost := s.member("Failover", victim)
	cause := fmt.Errorf("%s was lost: its lease ran out", victim)
	s.mu.Lock()
	if s.last.Node != victim || s.last.resigned {
		s.term++ // the victim's
		s.last = tenure{Peer: lost, term: s.term}
	}
	s.mu.Unlock()
	l := s.win(cause)
	r := nothing()
	if s.can(sdk.CanFence) {
		t := s.transition(sdk.Fence, l.term, sdk.ReasonFailover, cause)
		t.Primary, t.Previous = lost, lost
		r = s.try(l, t, s.service.Fence)
		switch {
		case l.done() || closed(s.stopping):
			return r
		case !r.Outcome.OK():
			s.demoting(l, sdk.ReasonUnfit, fmt.Errorf("fence %s: %w", victim, r.Err()))
			return r
		}
	}
	if p := s.promoting(l, sdk.ReasonFailover, cause); s.can(sdk.CanPromote) {
		r = p
	}
	return r
}

// Switchover has an operator ask for the role to go to a member.
//
// From this node, which is primary: it demotes, planned, with that member as the
// transition's Primary, and resigns; the other is primary then, and the part is
// asked to follow it. The result is that of the demote. If it fails, the
// switchover is undone, by a promote of the same term for the reason undo, and
// the node is primary as before; if that fails as well, it is demoted by force.
//
// To this node, a standby: it wins the role that the other has resigned, and
// promotes. The result is that of the promote.
func (s *Supervisor) Switchover(to string) sdk.Result {
	s.t.Helper()
	defer s.step()()
	if to == s.service.Node.Node {
		s.must("Switchover to this node", sdk.RoleStandby)
		cause := errors.New("switchover to this node")
		s.mu.Lock()
		if s.last.term == s.term {
			s.last.resigned = true
		}
		s.mu.Unlock()
		return s.promoting(s.win(cause), sdk.ReasonSwitchover, cause)
	}
	s.must("Switchover to "+to, sdk.RolePrimary)
	target, l := s.member("Switchover", to), s.held("Switchover")
	s.mu.Lock()
	s.primary = target
	s.mu.Unlock()
	r := s.demoting(l, sdk.ReasonSwitchover, fmt.Errorf("switchover to %s", to))
	if s.Role() == sdk.RoleStandby && !closed(l.lost) && r.Outcome.OK() {
		s.followed(target)
	}
	return r
}

// Follow has another node be primary, fully promoted, while this one is a
// standby, and asks the part to follow it, once: a real supervisor asks again
// until that has succeeded. Called again for the same node it is the next
// attempt. The result is the follow's.
func (s *Supervisor) Follow(node string) sdk.Result {
	s.t.Helper()
	defer s.step()()
	s.must("Follow", sdk.RoleStandby)
	return s.followed(s.member("Follow", node))
}

func (s *Supervisor) followed(to sdk.Peer) sdk.Result {
	s.mu.Lock()
	again := s.last.Node == to.Node && !s.last.resigned && s.follow.Term == s.last.term
	if !again {
		s.term++
	}
	term := s.term
	s.primary, s.last = to, tenure{Peer: to, term: term}
	s.mu.Unlock()
	t := s.transition(sdk.Follow, term, sdk.ReasonElection, fmt.Errorf("%s is primary", to.Node))
	s.mu.Lock()
	if again {
		s.follow.Attempt++
		t = s.follow
	}
	t.Timeout = s.service.Promote.Timeout
	s.follow = t
	s.mu.Unlock()
	if !s.can(sdk.CanFollow) {
		return nothing()
	}
	return s.do(t, s.stopping, nil)
}

// Lose has the lease run out: from now on no renewal is acknowledged, as when etcd
// cannot be reached. At 0.75 of the TTL after the last renewal what still runs is
// cut short, and the part is demoted by force, with what is left until 0.95 of it
// and at least 0.15; again and again until the lease is over, and three times at
// least. It returns when the part is proven demoted, or the node has failed, with
// the result of the last demote.
func (s *Supervisor) Lose() sdk.Result {
	s.t.Helper()
	l := s.held("Lose")
	l.silence()
	s.mu.Lock()
	until := l.until
	s.mu.Unlock()
	pause(until.Add(s.timing.lost-s.timing.until).Sub(s.Now()), l.over, s.ended, nil)
	return s.lost(l, fmt.Errorf("lease lost: no pulse acknowledged for %s", s.timing.lost))
}

// Revoke has the role taken away at once, as when somebody else has deleted the
// node's record: nothing is left of the lease. What runs is cut short, and the
// part is demoted by force, with 0.15 of the TTL for each of three attempts.
func (s *Supervisor) Revoke() sdk.Result {
	s.t.Helper()
	l := s.held("Revoke")
	l.silence()
	s.mu.Lock()
	l.until = 0
	s.mu.Unlock()
	return s.lost(l, errors.New("lease lost: it proved not ours"))
}

func (s *Supervisor) lost(l *lease, cause error) sdk.Result {
	if !closed(l.over) {
		l.lose()
	}
	defer s.step()()
	if closed(l.over) { // whoever had the turn has seen to it
		return l.result
	}
	return s.demoting(l, sdk.ReasonLost, cause)
}

// Stop has the supervisor be stopped for good: a promote that runs is told to end,
// a primary demotes, planned, and resigns, and the plugin is drained and closed.
// The result is that of the demote, if there was one.
func (s *Supervisor) Stop() sdk.Result {
	s.t.Helper()
	s.mu.Lock()
	if !closed(s.stopping) {
		close(s.stopping)
	}
	s.mu.Unlock()
	defer s.step()()
	s.mu.Lock()
	l, stopped := s.lease, s.stopped
	s.mu.Unlock()
	r := nothing()
	if l != nil && s.Role() != sdk.RoleBlocked {
		r = s.demoting(l, sdk.ReasonStop, errors.New("the supervisor is told to stop"))
	}
	if stopped {
		return r
	}
	s.mu.Lock()
	process := s.gone()
	s.stopped = true
	s.mu.Unlock()
	if process != nil {
		s.drain(process)
		s.destroy(process, sdk.ErrDrained)
	}
	s.tell("stopped")
	return r
}

// Crash has the supervisor die of SIGKILL, with its plugin, and come back at once.
// What ran is cut short. The new one starts the plugin afresh, and takes over a
// lease that still holds: a primary stays primary if the part answers a promote
// of the same term with sdk.ErrAlready, whose result is returned; anything else
// is demoted, and the result is that of the demote. A plugin that keeps in
// memory what it has to know does not pass this.
func (s *Supervisor) Crash() sdk.Result {
	s.t.Helper()
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		s.t.Fatalf("Crash: the supervisor was stopped")
	}
	process, l := s.gone(), s.lease
	s.lease = nil
	s.mu.Unlock()
	lost := l != nil && closed(l.lost)
	if l != nil {
		l.release()
	}
	if process != nil {
		s.destroy(process, errors.New("its supervisor was killed"))
	}
	defer s.step()()
	was := s.Role()
	s.mu.Lock()
	s.role, s.seen, s.acting = sdk.RoleUnknown, 0, false
	s.mu.Unlock()
	s.tell("killed, with its plugin, and started again")
	s.spawn()
	started := errors.New("started after a crash")
	switch {
	case l == nil:
		return s.takeDown(sdk.ReasonStart, started, false)
	case lost:
		return s.takeDown(sdk.ReasonStart, fmt.Errorf("%w, and the lease is not ours", started), true)
	}
	next := s.take(l.term)
	if was != sdk.RolePrimary {
		s.act(s.can(sdk.CanDemote))
		return s.demoting(next, sdk.ReasonStart, fmt.Errorf("the process before ended as %s", was))
	}
	adopted := errors.New("taken over from the process before")
	r := nothing()
	if s.can(sdk.CanPromote) {
		s.act(true)
		r = s.try(next, s.transition(sdk.Promote, next.term, sdk.ReasonStart, adopted), Policy{Timeout: s.service.Promote.Timeout})
		switch {
		case next.done() || closed(s.stopping):
			return r
		case r.Outcome != sdk.OutcomeAlready:
			return s.demoting(next, sdk.ReasonStart, fmt.Errorf("adopt: %s is not primary as the process before left it: %s %s", s.about.Name, r.Outcome, r.Detail))
		}
	}
	s.primaryNow(next, adopted)
	return r
}

// Kill has the plugin's process die of SIGKILL, and a new one be started at once
// with the same settings. That costs no role by itself: renewals go on, to the
// new one. An act that ran is unknown, and is asked again where its retries allow
// that.
func (s *Supervisor) Kill() {
	s.t.Helper()
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process == nil {
		s.t.Fatalf("Kill: the plugin does not run\n%s", s.Story())
	}
	s.tell("the plugin's process is killed, and started again")
	s.respawn(process, errors.New("its process was killed"))
}

// Reload puts other settings in force, as `deputy reload` does. Mistakes in them
// are returned, an sdk.KeyError each where it is one setting's, and those of
// before stay. A primary then promotes again, for the reason reload and with its
// term, and leaves the role when that fails; a standby is demoted. The same
// settings change nothing.
func (s *Supervisor) Reload(settings map[string]any) error {
	s.t.Helper()
	defer s.step()()
	s.must("Reload", sdk.RolePrimary, sdk.RoleStandby)
	s.mu.Lock()
	process, same, setup := s.process, reflect.DeepEqual(s.config, settings), s.setup(settings)
	s.mu.Unlock()
	if process == nil {
		return errGone
	}
	if err := process.Validate(context.Background(), setup); err != nil || same {
		return err
	}
	if err := process.Configure(context.Background(), setup); err != nil {
		return err
	}
	s.mu.Lock()
	s.config = settings
	s.mu.Unlock()
	s.tell("settings have changed")
	changed := errors.New("its settings have changed")
	if s.Role() == sdk.RoleStandby {
		s.takeDown(sdk.ReasonReload, changed, false)
		return nil
	}
	l := s.held("Reload")
	if r := s.promote(l, sdk.ReasonReload, changed); !r.Outcome.OK() && !l.done() && !closed(s.stopping) {
		s.demoting(l, sdk.ReasonUnfit, fmt.Errorf("promote %s with its new settings: %w", s.about.Name, r.Err()))
	}
	return nil
}

// Clear has an operator say that what kept this node from being demoted is put
// right (`deputy clear`), while it is blocked or failed. The part is demoted by
// force once more, and the result is that demote's.
func (s *Supervisor) Clear() sdk.Result {
	s.t.Helper()
	defer s.step()()
	s.must("Clear", sdk.RoleBlocked, sdk.RoleFailed)
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	cleared := errors.New("cleared by an operator")
	s.become(sdk.RoleDemoting, cleared)
	if l == nil {
		return s.takeDown(sdk.ReasonClear, cleared, true)
	}
	r := s.force(l, sdk.ReasonClear, cleared)
	if !r.Outcome.OK() {
		s.become(sdk.RoleBlocked, r.Err())
		return r
	}
	s.resign(l, true)
	s.become(sdk.RoleStandby, cleared)
	return r
}

// Do asks the plugin for an act as it is given, at once, and whatever else runs:
// for what no role machine asks for, such as a stale term, the same transition
// twice at once, or a demote in the middle of a promote. The node's role stays
// as it is. Fields that are not set are those of the next act here.
func (s *Supervisor) Do(t sdk.Transition) sdk.Result {
	s.t.Helper()
	whole := s.transition(t.Action, s.Term(), sdk.ReasonElection, errors.New("a test asks"))
	whole.Timeout = s.service.Promote.Timeout
	s.mu.Lock()
	if s.lease != nil {
		whole.LeaseUntil = s.lease.until
	}
	s.mu.Unlock()
	from, into := reflect.ValueOf(t), reflect.ValueOf(&whole).Elem()
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			into.Field(i).Set(from.Field(i))
		}
	}
	return s.do(whole, nil, nil)
}

// win begins a tenure of this node.
func (s *Supervisor) win(cause error) *lease {
	s.mu.Lock()
	term := s.term + 1
	s.primary = sdk.Peer{}
	s.mu.Unlock()
	l := s.take(term)
	s.become(sdk.RolePromoting, cause)
	return l
}

// member returns another member by its name, or ends the test.
func (s *Supervisor) member(what, name string) sdk.Peer {
	s.t.Helper()
	i := slices.IndexFunc(s.service.Others, func(p sdk.Peer) bool { return p.Node == name })
	if i < 0 {
		s.t.Fatalf("%s: %q is no other member; there are %v (Service.Others)", what, name, s.service.Others)
	}
	return s.service.Others[i]
}
