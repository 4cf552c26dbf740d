package sdktest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func checkCases() []Case {
	return []Case{
		{
			"check-changes-nothing", "A check only looks: before anything else, while promoted, and between a demote and a promote.",
			"Move what changes anything from the check to promote or demote, and answer what was seen: fit or not.",
			caseCheckLooks,
		},
		{
			"ten-checks", "Ten checks at once are all answered.",
			"Let checks share no lock, file or connection that only one of them can have.",
			caseTenChecks,
		},
		{
			"growth", "A thousand checks leave no memory, descriptors, threads or processes behind.",
			"Close what a check opens, wait for what it starts, and keep no list that only grows.",
			caseGrowth,
		},
		{
			"rank", "A rank answers for each of the others: its own position is equal to itself, and one that cannot be read is unknown.",
			"Compare only what both positions say; whatever else is sdk.Incomparable, and no error.",
			caseRank,
		},
	}
}

func caseCheckLooks(x *exam) {
	x.needs(sdk.CanCheck)
	roles := []sdk.Role{sdk.RoleStandby, sdk.RoleCandidate, sdk.RolePrimary}
	p := x.open()
	was := x.isPrimary() // whatever was left
	look := func() {
		for _, role := range roles {
			p.check(role, x.suite.term)
		}
	}
	look() // before anything
	x.world(was)
	if !x.can(sdk.CanPromote) {
		p.close()
		return
	}
	p.close()
	p = x.ready()
	look() // between a demote and a promote
	x.staysDemoted(p, x.suite.term)
	term := x.promoted(p)
	first := p.promote(term)
	look() // while promoted
	x.world(true)
	if r := p.promote(term); r.Outcome != first.Outcome {
		x.fail("a promote asked again was answered with %s before the checks and with %s after them: they changed something", tell(first), tell(r))
	}
	x.demoted(p, term)
	look()
	x.staysDemoted(p, term)
	p.close()
}

func caseTenChecks(x *exam) {
	x.needs(sdk.CanCheck)
	p := x.ready()
	x.checksAtOnce(p, sdk.RoleStandby, 10, 10)
	if x.can(sdk.CanPromote) {
		term := x.promoted(p)
		x.checksAtOnce(p, sdk.RolePrimary, 10, 10)
		x.demoted(p, term)
	}
	p.close()
}

// checksAtOnce has n checks done, at most so many at once, until its time is
// over, and returns how many were.
func (x *exam) checksAtOnce(p *guest, role sdk.Role, n, atOnce int) int {
	var next, done atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, atOnce)
	began := time.Now()
	for range atOnce {
		all.Go(func() {
			for next.Add(1) <= int64(n) && (time.Since(began) < growthTime || n == atOnce) {
				ctx, cancel := context.WithTimeout(x.ctx, x.config.Timeout)
				_, err := p.Check(ctx, role, x.suite.term)
				cancel()
				if err != nil {
					failed <- fmt.Errorf("after %d checks: %w", done.Load(), err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		x.lacks("ten-checks", "with %d checks at once, one gave no answer: %v", atOnce, err)
	default:
	}
	x.did.add("%d checks, role %s, %d at once", done.Load(), role, atOnce)
	return int(done.Load())
}

// The bounds of growth over a thousand checks. Memory may grow until it is
// collected, and runtimes keep a few threads in stock.
const (
	growthTime    = 20 * time.Second // for each thousand; of slow checks there are fewer
	maxMemory     = 8 << 20
	maxFiles      = 4
	maxThreads    = 8
	maxProcesses  = 2
	checksAtOnce  = 10
	checksInTotal = 1000
)

func caseGrowth(x *exam) {
	x.needs(sdk.CanCheck)
	p := x.ready()
	x.needsProcess(p, "nothing grows")
	role, term := sdk.RoleStandby, x.suite.term
	if x.can(sdk.CanPromote) {
		role, term = sdk.RolePrimary, x.promoted(p)
	}
	x.checksAtOnce(p, role, checksInTotal, checksAtOnce) // what is made once is made now
	before, err := usageOf(p.PIDs())
	if err != nil {
		x.fail("its use of the machine cannot be seen: %v", err)
	}
	n := x.checksAtOnce(p, role, checksInTotal, checksAtOnce)
	var grown usage
	for end := time.Now().Add(2 * time.Second); ; x.pause(50 * time.Millisecond) { // what is about to end may end
		after, err := usageOf(p.PIDs())
		if err != nil {
			x.fail("its use of the machine cannot be seen: %v", err)
		}
		grown = after.less(before)
		if grown.memory <= maxMemory && grown.files <= maxFiles && grown.threads <= maxThreads && grown.processes <= maxProcesses {
			break
		}
		if time.Now().After(end) {
			x.fail("after %d more checks it uses %s", n, grown)
		}
	}
	x.note("%s after %d checks", grown, n)
	if x.can(sdk.CanPromote) {
		x.demoted(p, term)
	}
	p.close()
}

// caseRank needs two positions: one that a check has told, and one that none
// could have.
func caseRank(x *exam) {
	x.needs(sdk.CanRank, sdk.CanCheck)
	p := x.ready()
	mine := p.check(sdk.RoleCandidate, x.suite.term).Position
	if mine == "" {
		x.skip("its check tells no position here")
	}
	ranks, ok := p.Hosted.(interface {
		Rank(ctx context.Context, mine string, others map[string]string) (map[string]sdk.Order, error)
	})
	if !ok {
		x.skip("its host cannot ask")
	}
	ctx, cancel := context.WithTimeout(x.ctx, askBound)
	defer cancel()
	others := map[string]string{"same": mine, "strange": "no position of any plugin"}
	over := x.did.begin("rank %q with the same and with %q", mine, others["strange"])
	orders, err := ranks.Rank(ctx, mine, others)
	if err != nil {
		over("%v", err)
		x.fail("a rank gave no answer where one of two positions is right: %v", err)
	}
	over("%v", orders)
	if o := orders["same"]; o != sdk.Equal {
		x.fail("compared with itself, its position %q is %s", mine, orderOf(o))
	}
	if o := orders["strange"]; o != sdk.Incomparable && o != "" {
		x.fail("compared with %q, which is no position, its own is %s", others["strange"], o)
	}
	p.close()
}

// orderOf is an order for people; a node that is left out has none that is known.
func orderOf(o sdk.Order) sdk.Order {
	if o == "" {
		return sdk.Incomparable
	}
	return o
}
