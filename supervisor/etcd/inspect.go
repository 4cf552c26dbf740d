package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// An Inspection is how etcd is doing, endpoint by endpoint.
type Inspection struct {
	Endpoints []Endpoint `json:"endpoints"`
	// Complaints are what a person should do about etcd as a whole.
	Complaints []string `json:"complaints,omitempty"`
}

// OK reports whether there is nothing to complain about.
func (i Inspection) OK() bool {
	for _, e := range i.Endpoints {
		if e.Problem != "" || len(e.Complaints) > 0 {
			return false
		}
	}
	return len(i.Complaints) == 0
}

// An Endpoint is how one endpoint is doing.
type Endpoint struct {
	URL string `json:"url"`
	// Problem tells why it cannot be used, and the cure; empty when it can.
	// What is below is empty then, as far as it is not known.
	Problem    string        `json:"problem,omitempty"`
	Version    string        `json:"version,omitempty"`
	Cluster    string        `json:"cluster,omitempty"` // id of the etcd cluster
	Leader     bool          `json:"leader,omitempty"`  // it leads the etcd cluster
	DBSize     int64         `json:"db_size,omitempty"` // bytes, allocated
	InUse      int64         `json:"db_in_use,omitempty"`
	Quota      int64         `json:"quota,omitempty"`      // bytes; 0 when etcd does not tell
	Latency    time.Duration `json:"latency_ns,omitempty"` // of one linearizable read; once connected
	Alarms     []string      `json:"alarms,omitempty"`
	Complaints []string      `json:"complaints,omitempty"`

	members    int      // that vote; 0 when not known
	leaderless bool     // it carries out nothing, and knows no leader
	whole      []string // what it tells about all
}

// Inspect asks each endpoint how it is doing, and whether this user may read
// and write the records there. It writes nothing. It needs no Run.
func (c *Client) Inspect(ctx context.Context) Inspection {
	in := Inspection{Endpoints: make([]Endpoint, len(c.hedge.ways))}
	var wg sync.WaitGroup
	for i, way := range c.hedge.ways {
		wg.Go(func() { in.Endpoints[i] = c.inspect(ctx, way) })
	}
	wg.Wait()
	answers := slices.ContainsFunc(in.Endpoints, func(e Endpoint) bool { return e.Problem == "" })
	for i, e := range in.Endpoints {
		if e.leaderless && answers {
			in.Endpoints[i].Problem = e.URL + ": " + sawCut
		}
	}
	for _, e := range in.Endpoints {
		for _, what := range e.whole {
			if !slices.Contains(in.Complaints, what) {
				in.Complaints = append(in.Complaints, what)
			}
		}
	}
	in.Complaints = append(in.Complaints, wholeComplaints(in.Endpoints)...)
	return in
}

func (c *Client) inspect(ctx context.Context, way kv) Endpoint {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
	defer cancel()
	e := Endpoint{URL: way.Name()}
	l := c.look(ctx, way)
	h, err := l.health, l.unwell
	// Not every attempt gets to hear why TLS was refused.
	for said := new(explained); err != nil && !errors.As(err, &said) && ctx.Err() == nil; {
		c.sleep(ctx, 2*hedgeDelay)
		h, err = way.Health(ctx)
		l.health, l.unwell = h, err
	}
	if err != nil {
		e.Problem = err.Error()
		if l.alive {
			e.Problem = way.Name() + ": " + l.ails()
		}
		return e
	}
	e.Version, e.DBSize, e.InUse, e.Quota, e.Alarms = h.Version, h.DBSize, h.InUse, h.Quota, h.Alarms
	e.Cluster, e.Leader = clusterName(h.Cluster), h.Leader == h.Member
	if end, ok := way.(*endpoint); ok {
		e.members = end.voters(ctx)
		if theirs, err := end.greet(ctx); err == nil {
			if far := skewed(time.Now(), theirs); far != "" {
				e.Complaints = append(e.Complaints, far)
			}
		}
	}
	for _, what := range h.complaints() {
		if what.whole {
			e.whole = append(e.whole, what.text)
		} else {
			e.Complaints = append(e.Complaints, what.text)
		}
	}
	// etcd asks for the permission of what a transaction might do, so one that
	// does nothing tells. No key was ever created at a negative revision.
	probe := c.keys.root + "probe"
	begin := time.Now()
	actx, acancel := context.WithTimeoutCause(ctx, attemptTimeout, errNoAnswer)
	defer acancel()
	_, err = way.Txn(actx, txn{
		If:   []cond{{key: probe, create: true, rev: -1}},
		Then: []op{put(probe, nil)},
		Else: []op{get(one(probe))},
	})
	if err != nil {
		e.Problem = err.Error()
		switch l.silence = err; {
		case errors.Is(err, errDenied):
		case h.Leader == 0:
			e.Problem, e.leaderless = way.Name()+": "+sawNoLeader, true
			e.Complaints = slices.DeleteFunc(e.Complaints, func(s string) bool { return s == sawNoLeader })
		case errors.Is(err, context.DeadlineExceeded):
			e.Problem = way.Name() + ": " + l.ails()
		}
		return e
	}
	e.Latency = time.Since(begin)
	// Nothing is as old as that, so this compacts nothing.
	if c.cfg.Compact > 0 && errors.Is(way.Compact(ctx, -1), errDenied) {
		e.Complaints = append(e.Complaints, compactDenied)
	}
	return e
}

// voters is how many members of etcd have a vote; 0 when not known. It is not
// needed for anything but advice.
func (e *endpoint) voters(ctx context.Context) (n int) {
	c, err := e.client(ctx)
	if err != nil {
		return 0
	}
	l, err := c.MemberList(ctx)
	if err != nil {
		return 0
	}
	for _, m := range l.Members {
		if !m.IsLearner {
			n++
		}
	}
	return n
}

func wholeComplaints(ends []Endpoint) []string {
	var all []string
	clusters, members := make(map[string]string), 0
	for _, e := range ends {
		if e.Cluster != "" {
			clusters[e.Cluster] = e.URL
		}
		members = max(members, e.members)
	}
	if len(clusters) > 1 {
		all = append(all, fmt.Sprintf("the endpoints belong to %d etcd clusters, so two nodes could lead: name the members of one", len(clusters)))
	}
	switch {
	case members == 1:
		all = append(all, "etcd has one member: when that fails, or its machine is updated, every primary demotes; use three")
	case members > 0 && members%2 == 0:
		all = append(all, fmt.Sprintf("etcd has %d members, and bears the loss of no more than with %d: use an odd number", members, members-1))
	}
	if members > len(ends) {
		all = append(all, fmt.Sprintf("etcd has %d members, and endpoints names %d: name them all, so that any may fail", members, len(ends)))
	}
	return all
}
