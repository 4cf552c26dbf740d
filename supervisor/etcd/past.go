package etcd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A past is what this process has seen of etcd's history, so that an etcd that
// was replaced, or went back in time, is noticed, and an endpoint of another
// etcd is not taken for one of ours.
type past struct {
	ends int // how many endpoints there are

	mu      sync.Mutex
	cluster uint64
	rev     int64  // the highest seen
	breaks  uint64 // how often the history turned out to be another

	belong map[string]uint64 // to which cluster each endpoint belongs, as it said last
	called bool              // all have been asked once
}

func newPast(ways []kv) *past {
	ends := make(map[string]bool)
	for _, way := range ways {
		ends[way.Name()] = true
	}
	return &past{ends: len(ends), belong: make(map[string]uint64)}
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

// broke takes note that what was read is of another history than the one with
// so many breaks. It reports whether that is news.
func (p *past) broke(breaks uint64, rev int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.breaks != breaks {
		return false
	}
	p.breaks++
	p.rev = rev
	return true
}

// now is the cluster and the highest revision seen of it, and how often that
// was another history than before.
func (p *past) now() (cluster uint64, rev int64, breaks uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cluster, p.rev, p.breaks
}

// expect has the first answers come from a cluster that was known before this
// process.
func (p *past) expect(name string) {
	id, err := strconv.ParseUint(name, 16, 64)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.cluster == 0 {
		p.cluster = id
	}
}

// belongs takes note of the cluster that an endpoint belongs to, and reports
// whether that is news.
func (p *past) belongs(end string, cluster uint64) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cluster == 0 || p.belong[end] == cluster {
		return false // some proxies do not tell
	}
	p.belong[end] = cluster
	return true
}

// admit returns an error for an answer of another cluster than the one that is
// known, unless most endpoints belong to that other one by now: then etcd was
// replaced. Answers of two clusters in turns would be two histories at once.
func (p *past) admit(end string, cluster uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cluster == 0 {
		return nil
	}
	p.belong[end] = cluster
	if p.cluster == 0 || cluster == p.cluster || 2*p.of(cluster) > p.ends {
		return nil
	}
	return &explained{
		endpoint: end, err: errForeign,
		text: foreignText(cluster, p.cluster), cure: cureForeign,
	}
}

func foreign(theirs, ours uint64) string { return foreignText(theirs, ours) + ": " + cureForeign }

func foreignText(theirs, ours uint64) string {
	return fmt.Sprintf("this endpoint belongs to etcd cluster %s, the others to %s", clusterName(theirs), clusterName(ours))
}

// of counts the endpoints that belong to a cluster; p.mu is held.
func (p *past) of(cluster uint64) (n int) {
	for _, c := range p.belong {
		if c == cluster {
			n++
		}
	}
	return n
}

// rollCalled takes note that all endpoints have been asked once, and reports
// whether that is news.
func (p *past) rollCalled() (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = !p.called
	p.called = true
	return news
}

// agreed reports whether the endpoints can be taken for those of one etcd:
// most of them belong to it, or all have been asked and none belongs to
// another. Else why tells of those that do; it is empty while it is not known.
func (p *past) agreed() (ok bool, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if 2*p.of(p.cluster) > p.ends {
		return true, ""
	}
	clusters := make(map[uint64][]string)
	for end, c := range p.belong {
		clusters[c] = append(clusters[c], end)
	}
	if len(clusters) < 2 {
		return p.called, ""
	}
	var parts []string
	for c, ends := range clusters {
		slices.Sort(ends)
		parts = append(parts, strings.Join(ends, " and ")+" to "+clusterName(c))
	}
	slices.Sort(parts)
	return false, fmt.Sprintf("the endpoints belong to %d etcd clusters, %s: %s", len(clusters), strings.Join(parts, ", "), cureForeign)
}

// clusterName spells the id of a cluster as etcdctl does in its tables.
func clusterName(id uint64) string { return strconv.FormatUint(id, 16) }
