package sdktest

import (
	"context"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func leaseCases() []Case {
	return []Case{
		{
			"renew", "A renewal is answered at any time, also during a promote, and promotes nothing.",
			"Extend what is there and nothing else; wait for no act, and where nothing is there yet say so without an error.",
			caseRenew,
		},
		{
			"expire", "What is renewed lasts, and never beyond the lease: a frozen plugin's part ends by itself.",
			"Have the kernel or the server end it, by a timeout that each promote and renewal sets to the lease's end; a timer of the process freezes with it.",
			caseExpire,
		},
	}
}

func (g *guest) renew(until sdk.Instant) error {
	ctx, cancel := context.WithTimeout(g.x.ctx, askBound)
	defer cancel()
	over := g.x.did.begin("renew for %s", short(until.Sub(sdk.Now())))
	err := g.Renew(ctx, until)
	if err != nil {
		over("%v", err)
	}
	return err
}

func caseRenew(x *exam) {
	x.needs(sdk.CanRenew, sdk.CanPromote)
	p := x.ready()
	term := x.nextTerm()
	promote := p.doing(x.ctx, x.transition(sdk.Promote, term))
	over := make(chan sdk.Result, 1)
	x.acts.Go(func() { over <- promote() })
	for running := true; running; {
		if err := p.renew(sdk.Now().Add(x.config.Lease)); err != nil {
			x.fail("a renewal during a promote failed: %v", err)
		}
		select {
		case r := <-over:
			if !r.Outcome.OK() {
				x.lacks("promote", "a promote during which the lease was renewed failed: %v", r.Err())
			}
			running = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	for range 3 {
		if err := p.renew(sdk.Now().Add(x.config.Lease)); err != nil {
			x.fail("a renewal failed: %v", err)
		}
		x.world(true)
	}
	x.demoted(p, term)
	_ = p.renew(sdk.Now().Add(x.config.Lease)) // it may say that there is nothing to renew
	x.staysDemoted(p, term)
	p.close()
}

func caseExpire(x *exam) {
	x.needs(sdk.CanRenew, sdk.CanPromote)
	if !x.config.Expires || x.config.Promoted == nil {
		x.skip("nobody says that its part ends by itself")
	}
	const lease = time.Second
	p := x.ready()
	x.needsProcess(p, "none can be frozen")
	t := x.transition(sdk.Promote, x.nextTerm())
	t.LeaseUntil = sdk.Now().Add(lease)
	x.did.add("the lease holds for %s from here", lease)
	if r := p.do(t); !r.Outcome.OK() {
		x.lacks("promote", "it could not be promoted: %v", r.Err())
	}
	until := t.LeaseUntil.Add(lease)
	if err := p.renew(until); err != nil {
		x.lacks("renew", "a renewal failed: %v", err)
	}
	x.signal(p, syscall.SIGSTOP)
	x.pause(t.LeaseUntil.Sub(sdk.Now()) + lease/4)
	if until.Sub(sdk.Now()) > lease/4 { // else the machine was too busy to tell
		x.world(true)
	}
	x.pause(until.Sub(sdk.Now()))
	x.did.add("the lease has ended")
	x.world(false)
	p.kill()
	p = x.openAt(t.Term)
	x.demoted(p, t.Term)
	p.close()
}
