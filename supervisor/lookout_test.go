package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
)

// A post is a Lookout whose clock a test moves.
type post struct {
	look *Lookout
	now  sdk.Instant
	st   Status
	news News
	said []string
	evs  []Event
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newPost(node string) *post {
	p := &post{look: NewLookout("db", node), now: sdk.Instant(time.Hour)}
	p.st = Status{Service: "db", Node: node, Role: sdk.RoleCandidate, TTL: 4 * time.Second, State: State{Service: "db"}}
	return p
}

func (p *post) wall() time.Time { return noon.Add(time.Duration(p.now) - time.Hour) }

// run lets time pass: it looks when the lookout wants to, and gives it news.
func (p *post) run(d time.Duration) {
	end := p.now.Add(d)
	for {
		s := p.look.Look(p.now, p.wall(), p.st, nil)
		p.take(s)
		if s.News {
			news := p.news
			s = p.look.Look(p.now, p.wall(), p.st, &news)
			p.take(s)
		}
		if s.Next == 0 || s.Next > end {
			break
		}
		p.now = s.Next
	}
	p.now = end
}

func (p *post) take(s Sight) {
	for _, e := range s.Events {
		p.evs = append(p.evs, e)
		p.said = append(p.said, fmt.Sprintf("%s [%s] %s", e.ID, e.Severity, e.Text))
	}
}

func (p *post) expect(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, p.said); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	p.said, p.evs = nil, nil
}

// primary has the records say that a node holds the role, and the history that
// it does once it acts.
func (p *post) primary(node string, term sdk.Term, role sdk.Role, c Change) {
	p.st.State.Vacant, p.st.State.Unclean = false, false
	p.st.State.Primary = &Primary{Node: node, Term: term, State: role, Since: p.wall()}
	p.st.State.Term = TermRecord{Term: term, Node: node}
	if role == sdk.RolePrimary {
		c.Term, c.Node, c.At = term, node, p.wall()
		p.news.Changes = append(p.news.Changes, c)
	}
}

func (p *post) lost() { p.st.State.Vacant, p.st.State.Unclean = true, true }

func (p *post) resigned() {
	p.st.State.Primary, p.st.State.Vacant, p.st.State.Term.Resigned = nil, true, true
}

// calm is a post that has seen db1 be primary for some time.
func calmly(t *testing.T, node string) *post {
	p := newPost(node)
	p.primary("db1", 7, sdk.RolePrimary, Change{Cause: "there was no primary"})
	p.news.Changes[0].At = noon.Add(-2 * oldNews)
	p.run(time.Minute)
	p.expect(t)
	return p
}

func TestAFailoverIsTold(t *testing.T) {
	p := calmly(t, "db2")
	p.lost()
	p.run(300 * time.Millisecond)
	p.primary("db2", 8, sdk.RolePromoting, Change{})
	p.run(700 * time.Millisecond)
	p.primary("db2", 8, sdk.RolePrimary, Change{From: "db1", Reason: sdk.ReasonFailover, Cause: "db1 was lost: its lease ran out"})
	p.run(time.Hour)
	p.expect(t, "db/8/primary [warning] db: db2 is primary, term 8: db1 was lost: its lease ran out; nobody was primary for about 5s. See `deputy history db`.")
}

func TestASwitchoverIsTold(t *testing.T) {
	p := calmly(t, "db3")
	p.primary("db2", 8, sdk.RolePromoting, Change{})
	p.run(200 * time.Millisecond)
	p.primary("db2", 8, sdk.RolePrimary, Change{From: "db1", Reason: sdk.ReasonSwitchover, Cause: "switchover to this node, asked by ann"})
	p.run(time.Hour)
	p.expect(t, "db/8/primary [info] db: db2 is primary, term 8: switchover to this node, asked by ann; nobody was primary for about 200ms. See `deputy history db`.")
}

func TestAFailoverIsToldThoughTheHistoryIsSilent(t *testing.T) {
	p := calmly(t, "db3")
	p.primary("db2", 8, sdk.RolePrimary, Change{})
	p.news.Changes = p.news.Changes[:1]
	p.run(causeDelay - time.Millisecond)
	p.expect(t)
	p.run(time.Hour)
	p.expect(t, "db/8/primary [info] db: db2 is primary, term 8. See `deputy history db`.")
}

func TestNoPrimaryIsToldWithItsEnd(t *testing.T) {
	p := calmly(t, "db2")
	p.lost()
	p.run(12 * time.Second) // on top of the TTL that the pulse was silent for
	p.expect(t)
	p.st.State.Pause = &Pause{Since: noon, By: "ann"}
	p.run(time.Minute)
	p.expect(t, fmt.Sprintf("db/7/no-primary [critical] db: nobody has been primary for 17s: db1 was lost, its lease ran out; paused %s, so nobody takes over: `deputy resume db`. `deputy explain db` tells why nobody can.", p.st.State.Pause))
	// Whoever tries and does not get there begins nothing new.
	p.primary("db2", 8, sdk.RolePromoting, Change{})
	p.run(2 * time.Minute)
	p.resigned()
	p.run(2 * time.Minute)
	p.expect(t)
	p.primary("db1", 9, sdk.RolePrimary, Change{From: "db1", Reason: sdk.ReasonElection, Cause: "db1 resigned"})
	p.run(time.Minute)
	if e := p.evs[0]; !e.Resolved || e.Kind != EventNoPrimary || e.Node != "db1" || e.WithoutPrimary != 5*time.Minute+16*time.Second {
		t.Errorf("the end: %+v", e)
	}
	p.expect(t,
		"db/7/no-primary/resolved [info] db: db1 is primary, term 9: the service has a primary again.",
		"db/9/primary [info] db: db1 is primary, term 9: db1 resigned; nobody was primary for about 5m16s. See `deputy history db`.")
}

func TestAPromotionThatTakesLongIsNoOutageYet(t *testing.T) {
	p := calmly(t, "db2")
	p.primary("db2", 8, sdk.RolePromoting, Change{})
	p.run(12*time.Second + vacantDelay + workDelay - time.Millisecond)
	p.expect(t)
	p.run(time.Second)
	// The same ID as for those who saw the vacancy before.
	p.expect(t, "db/7/no-primary [critical] db: nobody has been primary for 1m12s: db2 is promoting, term 8. `deputy explain db` tells why nobody can.")
}

func TestAServiceThatNeverHadAPrimary(t *testing.T) {
	p := newPost("db1")
	p.run(time.Hour) // nothing is known yet
	p.expect(t)
	p.st.State.Vacant = true
	p.run(time.Minute)
	p.expect(t, "db/0/no-primary [critical] db: nobody has been primary for 17s: there was none yet. `deputy explain db` tells why nobody can.")
}

func TestAnEtcdThatIsSilentIsNoOutage(t *testing.T) {
	p := calmly(t, "db2")
	p.lost()
	p.run(time.Second)
	p.st.State.Unreachable = "since noon"
	p.run(time.Hour)
	p.expect(t)
}

func TestANodeThatIsStuckIsToldOnce(t *testing.T) {
	here, there := calmly(t, "db1"), calmly(t, "db2")
	blocked := func(role sdk.Role, since time.Time) {
		here.st.Role, here.st.Term, here.st.LeaseLeft, here.st.Since, here.st.Cause = role, 7, time.Second, since, "demote vip: device is busy"
		there.st.State.Candidates = []Candidate{{Node: Node{Name: "db1"}, Role: role, Term: 7, Since: since, Health: "vip: device is busy"}}
		here.run(time.Second)
		there.run(time.Second)
	}
	for i := range 5 { // it tries again and again
		blocked(sdk.RoleBlocked, noon.Add(time.Duration(i)*time.Second))
		blocked(sdk.RoleDemoting, noon)
	}
	there.expect(t, "db/7/blocked/db1 [critical] db: db1 keeps the role, so that nobody else starts, because its demotion failed: vip: device is busy. Put it right there, then `deputy clear db`.")
	here.expect(t, "db/7/blocked/db1 [critical] db: db1 keeps the role, so that nobody else starts, because its demotion failed: demote vip: device is busy. Put it right there, then `deputy clear db`.")
	blocked(sdk.RoleStandby, noon)
	for _, p := range []*post{here, there} {
		p.expect(t, "db/7/blocked/db1/resolved [info] db: db1 is blocked no more: it is standby.")
	}
	here.st.LeaseLeft, here.st.Role, here.st.Since = 0, sdk.RoleFailed, noon
	here.run(time.Second)
	here.expect(t, "db/since-1767268800/failed/db1 [critical] db: db1 may still act as primary without a lease, because its demotion failed: demote vip: device is busy. Put it right there, then `deputy clear db`.")
}

func TestAPrimaryThatIsCutOff(t *testing.T) {
	p := calmly(t, "db1")
	p.st.Role, p.st.Term, p.st.LeaseLeft = sdk.RolePrimary, 7, 3500*time.Millisecond
	p.st.State.Unreachable = "since noon: no answer"
	if s := p.look.Look(p.now, p.wall(), p.st, nil); s.Events != nil || s.Next != p.now.Add(1500*time.Millisecond) {
		t.Errorf("with most of the lease left: %+v", s)
	}
	p.st.LeaseLeft = 2 * time.Second
	p.run(time.Second)
	p.expect(t, "db/7/etcd-unreachable/db1 [critical] db: db1, primary in term 7, cannot reach etcd and leaves the role 2s from now unless it can: since noon: no answer. See `deputy check --deep`.")
	p.st.State.Unreachable, p.st.Role = "", sdk.RoleStandby
	p.run(time.Second)
	p.expect(t, "db/7/etcd-unreachable/db1/resolved [info] db: db1 can reach etcd again, and is standby.")
}

func TestStepsThatFailAreTold(t *testing.T) {
	p := calmly(t, "db3")
	bad := Step{Plugin: "mysql", Action: sdk.Promote, Outcome: sdk.OutcomeUnchanged, Detail: "replica lags"}
	good := bad
	good.Outcome = sdk.OutcomeDone
	p.resigned()
	p.news.Changes = append(p.news.Changes,
		Change{Term: 8, Node: "db2", At: p.wall(), Ended: p.wall(), EndCause: "promote mysql: replica lags", Steps: []Step{
			{Plugin: "power", Action: sdk.Fence, Victim: "db1", Outcome: sdk.OutcomeUnknown, Detail: "no answer"}, bad, bad,
		}},
		Change{
			Term: 9, Node: "db3", At: p.wall(), Ended: p.wall(), EndCause: "told to stop", Cause: "db2 resigned", Steps: []Step{bad, good},
			EndSteps: []Step{{Plugin: "vip", Action: sdk.Demote, Outcome: sdk.OutcomeUnknown}},
		})
	p.st.State.Term.Term = 9
	p.run(5 * time.Second)
	p.expect(t,
		"db/8/fence-failed/power/db1 [critical] db: db1 could not be fenced by power on db2 in term 8: no answer. See `deputy history db` and `deputy status db`.",
		"db/8/promotion-failed/mysql [warning] db: db2 could not promote mysql in term 8: replica lags. See `deputy history db` and `deputy status db`.",
		"db/9/demotion-failed/vip [critical] db: db3 left the role of term 9 without a demotion of vip that succeeded: failed-unknown. See `deputy history db` and `deputy status db`.",
		"db/9/primary [info] db: db3 became primary, term 9: db2 resigned; it left the role after 0s: told to stop. See `deputy history db`.")
}

// What happened while no supervisor of a node ran is told by the next one, as
// far as it is not long ago; what another has begun to tell it ends.
func TestANewProcessTellsWhatIsNotTold(t *testing.T) {
	p := newPost("db1")
	p.primary("db2", 8, sdk.RolePrimary, Change{Cause: "db1 was lost: its lease ran out"})
	p.news.Changes = append([]Change{{Term: 7, Node: "db1", At: noon.Add(-2 * oldNews)}}, p.news.Changes...)
	p.news.Told = []string{"db/7/no-primary", "db/5/no-primary", "db/5/no-primary/resolved", "db/7/etcd-unreachable/db2", "db/7/primary", "db/odd"}
	p.run(time.Minute)
	p.expect(t,
		"db/8/primary [info] db: db2 is primary, term 8: db1 was lost: its lease ran out. See `deputy history db`.",
		"db/7/no-primary/resolved [info] db: db2 is primary, term 8: the service has a primary again.")
}

// All who look tell the same, whenever they look and whatever they missed.
func TestAllNodesGiveAnEventTheSameID(t *testing.T) {
	ids := func(missed int) (all []string) {
		p := calmly(t, "db2")
		steps := []func(){
			p.lost,
			func() { p.primary("db3", 8, sdk.RolePromoting, Change{}) },
			func() { p.primary("db3", 8, sdk.RolePrimary, Change{From: "db1"}) },
		}
		for i, step := range steps {
			step()
			if i != missed {
				p.run(2 * time.Minute)
			}
		}
		for _, e := range p.evs {
			all = append(all, e.ID)
		}
		slices.Sort(all)
		return all
	}
	want := strings.Fields("db/7/no-primary db/7/no-primary/resolved db/8/primary")
	for missed := -1; missed < 2; missed++ {
		if got := ids(missed); !slices.Equal(got, want) {
			t.Errorf("without step %d: %q", missed, got)
		}
	}
}

func TestALookoutForgets(t *testing.T) {
	p := calmly(t, "db2")
	for term := sdk.Term(8); term < 2000; term++ {
		p.news.Changes = nil
		p.primary("db1", term, sdk.RolePrimary, Change{})
		p.run(2 * time.Second)
	}
	if n := len(p.look.known); n > maxKnown+1 {
		t.Errorf("knows %d IDs", n)
	}
	if n := len(p.evs); n != 1992 {
		t.Errorf("%d events, want 1992", n)
	}
}
