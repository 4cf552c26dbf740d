package sdktest

import (
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func followCases() []Case {
	return []Case{
		{
			"follow", "A follow promotes nothing, may be asked again, and stands in the way of no promote or demote.",
			"Have a follow point the part to the primary that it is told, which may be one that it follows already, and do nothing else.",
			caseFollow,
		},
	}
}

// caseFollow asks for a primary that may not be there: whether it can be
// followed is not the contract's.
func caseFollow(x *exam) {
	x.needs(sdk.CanFollow, sdk.CanDemote)
	p := x.ready()
	term := x.nextTerm()
	follow := func() sdk.Result {
		t := x.transition(sdk.Follow, term)
		began := time.Now()
		r := p.do(t)
		if late := time.Since(began) - t.Timeout; late > endBound+slack {
			x.lacks("deadline", "a follow that may take %s ended %s after that", short(t.Timeout), short(late))
		}
		x.world(false)
		return r
	}
	first := follow()
	if r := follow(); first.Outcome.OK() && !r.Outcome.OK() {
		x.fail("asked again, a follow failed: %v", r.Err())
	}
	p.kill()
	p = x.openAt(term)
	if r := follow(); first.Outcome.OK() && !r.Outcome.OK() {
		x.fail("asked again in a fresh process, a follow failed: %v", r.Err())
	}
	if err := first.Err(); err != nil {
		x.note("there was nobody to follow: %v", err)
	}
	if !x.can(sdk.CanPromote) {
		p.close()
		return
	}
	// It is no tenure, and no obstacle to one.
	x.demoted(p, term)
	x.demoted(p, x.promoted(p))
	p.close()
}
