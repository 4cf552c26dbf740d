package sdktest

import (
	"github.com/deputy-ha/deputy/sdk"
)

func processCases() []Case {
	return []Case{
		{
			"output", "It may print what it likes: it works on, however much it is.",
			"Let nothing depend on what is printed or on how fast it is read.",
			caseOutput,
		},
		{
			"descriptors", "What it starts does not keep its outputs open: nobody reads them once it has ended.",
			"Start what outlives the process with outputs of its own, such as /dev/null or a file.",
			caseDescriptors,
		},
	}
}

func caseOutput(x *exam) {
	p := x.ready()
	for range 3 {
		term := x.suite.term
		if x.can(sdk.CanPromote) {
			term = x.promoted(p)
			x.world(true)
		}
		if x.can(sdk.CanCheck) {
			p.check(sdk.RolePrimary, term)
		}
		if x.can(sdk.CanDemote) {
			x.demoted(p, term)
		}
		if err := x.ping(p, askBound); err != nil {
			x.fail("it did not answer a ping: %v", err)
		}
	}
	if s, ok := p.Hosted.(interface{ Printed() int64 }); ok {
		x.note("it printed %d bytes", s.Printed())
	}
	p.close()
}

func caseDescriptors(x *exam) {
	x.needs(sdk.CanPromote)
	p := x.ready()
	x.needsProcess(p, "its host warns of what keeps its outputs")
	term := x.promoted(p)
	p.close()
	free := func(p *guest) {
		if held := p.Left().Outputs; len(held) > 0 {
			x.fail("it has ended, and its outputs are kept open by %s: start it with outputs of its own", processNames(held))
		}
	}
	free(p)
	p = x.openAt(term)
	x.demoted(p, term)
	p.close()
	free(p)
}
