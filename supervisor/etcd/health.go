package etcd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/deputy-ha/deputy/sdk"
)

// A health is how one member of etcd is doing, as it says itself.
type health struct {
	Member  uint64
	Cluster uint64
	Version string
	DBSize  int64  // bytes, allocated
	InUse   int64  // bytes
	Quota   int64  // bytes; 0 when not told, as before etcd 3.6
	Leader  uint64 // the member that it takes for the leader; 0: none
	Learner bool
	Alarms  []string
}

func (e *endpoint) Health(ctx context.Context) (health, error) {
	c, err := e.client(ctx)
	if err != nil {
		return health{}, e.explain(err)
	}
	// The client's own Status connects anew, and hides why it cannot.
	s, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return health{}, e.explain(clientv3.ContextError(ctx, err))
	}
	return health{
		Member:  s.Header.MemberId,
		Cluster: s.Header.ClusterId,
		Version: s.Version,
		DBSize:  s.DbSize,
		InUse:   s.DbSizeInUse,
		Quota:   s.DbSizeQuota,
		Leader:  s.Leader,
		Learner: s.IsLearner,
		Alarms:  s.Errors,
	}, nil
}

// defaultQuota is what etcd has unless told otherwise: --quota-backend-bytes.
const defaultQuota = 2 << 30

// alarmingShare is how much of its quota etcd's database may take up before
// deputy complains. At all of it etcd denies every write, so that no lease can
// be renewed.
const alarmingShare = 0.8

// A complaint is what a person should do about etcd.
type complaint struct{ about, text string }

// complaints of a member, the worst first.
func (h health) complaints() []complaint {
	var all []complaint
	complain := func(about, format string, args ...any) {
		all = append(all, complaint{about, fmt.Sprintf(format, args...)})
	}
	for _, alarm := range h.Alarms {
		switch {
		case strings.Contains(alarm, "NOSPACE"):
			complain("alarm", "etcd has reached its quota and denies every write, so nobody can hold a role: compact and defragment it, then etcdctl alarm disarm")
		case strings.Contains(alarm, "CORRUPT"):
			complain("alarm", "etcd has found its data corrupt: replace this member")
		}
	}
	if h.Leader == 0 {
		complain("leader", "this member sees no leader: etcd has lost its majority, or is electing")
	}
	quota, assumed := h.Quota, ""
	if quota == 0 {
		quota, assumed = defaultQuota, ", etcd's default"
	}
	if float64(h.DBSize) > alarmingShare*float64(quota) {
		cure := "compact it, or raise --quota-backend-bytes"
		if h.InUse < h.DBSize/2 {
			cure = "etcdctl defrag frees what is not in use"
		}
		complain("size", "the database takes up %s of %s%s, %s of it in use, and when it is full nobody can hold a role: %s",
			mib(h.DBSize), mib(quota), assumed, mib(h.InUse), cure)
	}
	if want := outdated(h.Version); want != "" {
		complain("version", "etcd %s has known bugs that matter here: stale reads after a pause, keep-alives of dead leases, reads beyond what a role is granted; use %s or later", h.Version, want)
	}
	if h.Learner {
		complain("learner", "this member is a learner: it answers no transaction")
	}
	return all
}

func mib(n int64) string { return strconv.FormatInt(n>>20, 10) + " MiB" }

// outdated returns the version to use instead of one that has bugs which
// matter to deputy, or "" for a good one: 3.5.33, 3.6.14 and 3.7.1 have fixed
// the last of these (GHSA-xg4h).
func outdated(version string) string {
	v, ok := parseVersion(version)
	switch {
	case !ok:
		return ""
	case v[0] < 3 || v[0] == 3 && v[1] < 5:
		return "3.6.14"
	case v[0] > 3:
		return ""
	}
	fixed := map[int]int{5: 33, 6: 14, 7: 1}
	if patch, known := fixed[v[1]]; known && v[2] < patch {
		return fmt.Sprintf("3.%d.%d", v[1], patch)
	}
	return ""
}

func parseVersion(s string) (v [3]int, ok bool) {
	s, _, _ = strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return v, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

// healthEvery is how often each process looks at the members of etcd, and
// remindEvery how often the same complaint is repeated.
const (
	healthEvery = 5 * time.Minute
	remindEvery = time.Hour
)

// minding complains about etcd in the log, long before there is trouble, until
// ctx ends.
func (c *Client) minding(ctx context.Context) {
	said := make(map[string]sdk.Instant)
	for ctx.Err() == nil {
		for _, way := range c.hedge.ways {
			hctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
			h, err := way.Health(hctx)
			cancel()
			if err != nil {
				continue // that an endpoint does not answer is told elsewhere
			}
			now := c.clock.Now()
			for _, what := range h.complaints() {
				key := way.Name() + " " + what.about
				if at, again := said[key]; !again || now.Sub(at) >= remindEvery {
					c.log.Warn("etcd needs care", "endpoint", way.Name(), "cause", what.text)
					said[key] = now
				}
			}
		}
		c.sleep(ctx, healthEvery)
	}
}

// sleep waits on the Client's clock, unless ctx ends before.
func (c *Client) sleep(ctx context.Context, d time.Duration) {
	t := c.clock.Timer(c.clock.Now().Add(d))
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}
