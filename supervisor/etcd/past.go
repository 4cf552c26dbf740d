package etcd

import "sync"

// A past is what this process has seen of etcd's history, so that an etcd that
// was replaced, or went back in time, is noticed.
type past struct {
	mu      sync.Mutex
	cluster uint64
	rev     int64  // the highest seen
	breaks  uint64 // how often the history turned out to be another
}

// A floor is what a reply to a question that is asked now may not fall below.
type floor struct {
	rev    int64
	breaks uint64
}

func (p *past) highest() floor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return floor{rev: p.rev, breaks: p.breaks}
}

// saw takes note of a reply. One that is older than what was known when it was
// asked for, or comes from another cluster, is of another history: it reports
// whether that is so.
func (p *past) saw(r reply, asked floor) (broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cluster != 0 && r.Cluster != p.cluster,
		r.Rev < asked.rev && asked.breaks == p.breaks:
		p.breaks++
		p.rev = r.Rev
		broken = true
	default:
		p.rev = max(p.rev, r.Rev)
	}
	p.cluster = r.Cluster
	return broken
}

// now is the cluster and the highest revision seen of it, and how often that
// was another history than before.
func (p *past) now() (cluster uint64, rev int64, breaks uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cluster, p.rev, p.breaks
}
