package sdktest

import (
	"context"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

func leaseCases() []Case {
	return []Case{
		{"renew", "A renewal is answered at any time, also during a promote, and promotes nothing.", caseRenew},
		{"expire", "What is renewed lasts, and never beyond the lease: a frozen plugin's part ends by itself.", caseExpire},
	}
}

func (g *guest) renew(until sdk.Instant) error {
	ctx, cancel := context.WithTimeout(g.x.ctx, askBound)
	defer cancel()
	err := g.Renew(ctx, until)
	g.x.did.add("renewed for %s: %v", short(until.Sub(sdk.Now())), err)
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
	x.did.add("the lease ended")
	x.world(false)
	p.kill()
	p = x.openAt(t.Term)
	x.demoted(p, t.Term)
	p.close()
}
