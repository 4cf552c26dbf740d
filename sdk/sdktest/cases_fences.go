package sdktest

import (
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func fenceCases() []Case {
	return []Case{
		{
			"fence-self", "A fence of the node that it runs on is refused, and changes nothing.",
			"Compare the victim with this node before anything else, as package sdk does.",
			caseFenceSelf,
		},
		{
			"fence", "A fence returns when the other node is proven to be down, and is repeatable, also by another process.",
			"Ask the device how the node is instead of remembering: one that is down already is fenced.",
			caseFence,
		},
		{
			"fence-stranger", "A fence of a node that the plugin does not know never says that it is down.",
			"Refuse a victim that is nowhere in the settings: nobody has seen it down.",
			caseFenceStranger,
		},
	}
}

func caseFenceSelf(x *exam) {
	x.needs(sdk.CanFence)
	p := x.ready()
	t := x.transition(sdk.Fence, x.nextTerm())
	t.Primary, t.Previous = x.config.Node, x.config.Node
	if r := p.do(t); r.Outcome != sdk.OutcomeUnchanged {
		x.fail("a fence of its own node was answered with %s", tell(r))
	}
	p.close()
}

func caseFence(x *exam) {
	x.needsVictim()
	p := x.ready()
	t := x.nextTerm()
	began := time.Now()
	if r := p.do(x.transition(sdk.Fence, t)); !r.Outcome.OK() {
		x.fail("%s could not be fenced: %v", x.config.Victim.Node, r.Err())
	}
	x.note("fenced in %s", short(time.Since(began)))
	if r := p.do(x.transition(sdk.Fence, t)); !r.Outcome.OK() {
		x.fail("%s could not be fenced again: %v", x.config.Victim.Node, r.Err())
	}
	p.kill()
	p = x.openAt(t)
	if r := p.do(x.transition(sdk.Fence, x.nextTerm())); !r.Outcome.OK() {
		x.fail("%s could not be fenced by a fresh process: %v", x.config.Victim.Node, r.Err())
	}
	p.close()
}

func caseFenceStranger(x *exam) {
	x.needsVictim()
	p := x.ready()
	t := x.transition(sdk.Fence, x.nextTerm())
	t.Primary = sdk.Peer{Node: "nobody-of-that-name"}
	t.Previous = t.Primary
	if r := p.do(t); r.Outcome.OK() {
		x.fail("a fence of a node that there is not was answered with %s", tell(r))
	}
	p.close()
}

// needsVictim skips the case where nothing can be fenced.
func (x *exam) needsVictim() {
	x.needs(sdk.CanFence)
	if x.config.Victim.Node == "" {
		x.skip("it would really fence a node, and none was named for that")
	}
}
