package sdktest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// A Case proves one rule of the contract.
type Case struct {
	Name     string // short, for --run
	Contract string // the rule, in a sentence
	Cure     string // what usually puts right a plugin that breaks it
	run      func(*exam)
}

// Cases returns all cases, in the order in which they run: a case that others
// stand on comes before them.
func Cases() []Case {
	return slices.Concat(firstCases(), actCases(), fenceCases(), followCases(), faultCases(), checkCases(), processCases(), leaseCases())
}

// caseOf returns the case of that name.
func caseOf(name string) Case {
	all := Cases()
	return all[slices.IndexFunc(all, func(k Case) bool { return k.Name == name })]
}

// caseBound bounds one case, besides the acts that it asks for.
const caseBound = time.Minute

// Examine runs the cases one after the other and returns what came out; each
// is also told to heard, when given, as soon as it is known. When ctx ends, the
// case that runs is cut short and the plugin demoted; what was not run is told
// as skipped, and the error says why.
func Examine(ctx context.Context, s Subject, c Config, heard func(Result)) ([]Result, error) {
	if c.StateDir == "" {
		dir, err := os.MkdirTemp("", "sdktest-state-")
		if err != nil {
			return nil, fmt.Errorf("make a state folder: %w", err)
		}
		defer os.RemoveAll(dir)
		c.StateDir = dir
	}
	u := newSuite(s, c)
	var all []Result
	for _, k := range Cases() {
		if c.Only != nil && !c.Only.MatchString(k.Name) {
			continue
		}
		var r Result
		if ctx.Err() == nil {
			r = u.run(ctx, k)
		} else {
			r = Result{Case: k.Name, Contract: k.Contract, Verdict: Skipped, Note: fmt.Sprintf("not run: %v", context.Cause(ctx))}
		}
		all = append(all, r)
		if heard != nil {
			heard(r)
		}
	}
	if ctx.Err() != nil {
		return all, fmt.Errorf("examine: %w", context.Cause(ctx))
	}
	return all, nil
}

// A suite is what the cases of one run share.
type suite struct {
	subject Subject
	config  Config

	about        *wire.Description // once it was asked
	term         sdk.Term          // the highest used
	ids          int
	enter, leave time.Duration // that a promote and a demote took undisturbed, at least; zero before they were measured
	longest      time.Duration // that a demote took
	tellsAlready *bool         // whether a demote that has nothing to do says so
	failed       map[string]bool
	spoiled      string // the case whose failure has left what a fresh process cannot demote
}

func newSuite(s Subject, c Config) *suite {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Lease <= 0 {
		c.Lease = time.Minute
	}
	if c.Term == 0 {
		c.Term = sdk.Term(time.Now().Unix())
	}
	if c.Node == (sdk.Peer{}) {
		c.Node = sdk.Peer{Node: "sdktest", Address: "127.0.0.1"}
	}
	return &suite{subject: s, config: c, term: c.Term, failed: map[string]bool{}}
}

// run runs one case to its end, and leaves the plugin demoted as far as it can.
func (u *suite) run(all context.Context, k Case) Result {
	ctx, cancel := context.WithTimeoutCause(all, caseBound+8*u.config.Timeout, fmt.Errorf("the case is not over within %s", caseBound+8*u.config.Timeout))
	defer cancel()
	x := &exam{suite: u, ctx: ctx, k: k, rule: k, result: Result{Case: k.Name, Contract: k.Contract, Verdict: Passed}}
	began := time.Now()
	over := make(chan struct{})
	go func() { // a goroutine of its own, which Goexit ends
		defer close(over)
		defer x.stop()
		k.run(x)
	}()
	<-over
	x.result.Took = time.Since(began)
	if all.Err() != nil && x.result.Verdict == Failed { // by whoever ended it
		x.result = Result{Case: k.Name, Contract: k.Contract, Verdict: Skipped, Took: x.result.Took, Note: fmt.Sprintf("cut short: %v", context.Cause(all))}
	}
	u.failed[k.Name] = x.result.Verdict == Failed
	x.tidy()
	return x.result
}

// An exam is one case while it runs. Only the case's own goroutine may fail or
// skip it.
type exam struct {
	*suite
	ctx    context.Context
	k      Case
	rule   Case // that a failure breaks: another one's where that has not run
	did    steps
	guests []*guest
	acts   sync.WaitGroup
	result Result
}

// fail ends the case: what was seen is not what the contract says.
func (x *exam) fail(format string, args ...any) {
	x.result.Verdict, x.result.Saw, x.result.Did = Failed, fmt.Sprintf(format, args...), x.did.list()
	x.result.Contract, x.result.Cure = x.rule.Contract, x.rule.Cure
	if err := context.Cause(x.ctx); err != nil {
		x.result.Saw += "; " + err.Error()
	}
	for _, g := range slices.Backward(x.guests) {
		if said := strings.TrimSpace(g.Said()); said != "" {
			x.result.Said = said
			break
		}
	}
	runtime.Goexit()
}

// skip ends the case: it does not apply.
func (x *exam) skip(format string, args ...any) {
	x.result.Verdict, x.result.Note = Skipped, fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// lacks ends the case because what another case proves does not hold. That is
// this one's failure only where it is not known already.
func (x *exam) lacks(other, format string, args ...any) {
	failed, ran := x.suite.failed[other]
	if other != x.k.Name && failed {
		x.skip("cannot be tried: see %s", other)
	}
	if !ran {
		x.rule = caseOf(other)
	}
	x.fail(format, args...)
}

// note tells what was measured.
func (x *exam) note(format string, args ...any) {
	if x.result.Note != "" {
		x.result.Note += "; "
	}
	x.result.Note += fmt.Sprintf(format, args...)
}

// stop ends what the case has started.
func (x *exam) stop() {
	for _, g := range x.guests {
		g.end()
	}
	x.acts.Wait()
}

// tidy demotes once more, in a process of its own, so that a case that failed
// spoils no other.
func (x *exam) tidy() {
	if x.about == nil || !slices.Contains(x.about.Capabilities, sdk.CanDemote) || x.result.Verdict == Passed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), startBound+2*x.config.Timeout)
	defer cancel()
	p, err := x.subject.Open(ctx)
	if err != nil {
		return
	}
	if p.Configure(ctx, x.setup(0)) == nil {
		if r := p.Do(ctx, x.transition(sdk.Demote, x.suite.term), time.Second, func(string) {}); !r.Outcome.OK() && x.spoiled == "" {
			x.spoiled = x.k.Name
		}
	}
	_ = p.Close(ctx)
}
