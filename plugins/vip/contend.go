package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// contendInterval is how often a rival is answered: RFC 5227 (section 2.4, c)
// has hosts that must keep their address defend it, but not in a storm.
const contendInterval = time.Second

// quiet is how often in a row a rival has to be silent to be one no more.
const quiet = 3

// contend defends an address that the primary has by right: it announces the
// address for as long as another host claims it, and says who that is.
func (v *vip) contend(c *conflict) {
	if !v.holds() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rival != nil || !v.held {
		return // under way
	}
	v.rival = c
	before := v.contending // has ended, or is about to
	v.contending = begin(func(ctx context.Context) {
		before.end()
		v.outlast(ctx, c)
		v.mu.Lock()
		v.rival = nil
		v.mu.Unlock()
	})
}

// outlast announces until the other host is silent, or ctx ends.
func (v *vip) outlast(ctx context.Context, c *conflict) {
	said, silent := "", 0
	for {
		v.sayLater()
		if silent == 0 && said != c.Error() {
			said = c.Error()
			v.log.Warn("another host claims the address, and is contradicted each second: fence it, or take the address away from it", "cause", said)
		}
		if !sleep(ctx, contendInterval) {
			return
		}
		l, err := v.kernel.link(v.Interface)
		if err == nil {
			ask := v.Probe
			ask.Count = 1
			err = probe(ctx, ask, l, v.addrs())
		}
		switch {
		case errors.As(err, &c):
			silent = 0
		case err == nil:
			silent++
		}
		if silent == quiet {
			v.log.Info("the other host claims the address no more", "host", fmt.Sprint(c.mac))
			return
		}
	}
}
