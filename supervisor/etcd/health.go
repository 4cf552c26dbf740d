package etcd

import (
	"context"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
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
	Rev     int64 // of its newest change
	// What it shows, and what is shown to it; nil for none.
	Proof, Ours *x509.Certificate
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
		Rev:     s.Header.Revision,
		Proof:   e.proven(),
		Ours:    e.certificate(),
	}, nil
}

// defaultQuota is what etcd has unless told otherwise: --quota-backend-bytes.
const defaultQuota = 2 << 30

// alarmingShare is how much of its quota etcd's database may take up before
// deputy complains. At all of it etcd denies every write, so that no lease can
// be renewed.
const alarmingShare = 0.8

// runsOut reports whether a certificate should have been renewed by now: less
// than two weeks are left, and less than a fifth of its life, as some live for
// a day and are renewed by machines.
func runsOut(c *x509.Certificate) bool {
	return c != nil && time.Until(c.NotAfter) < min(14*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/5)
}

// A complaint is what a person should do about etcd.
type complaint struct {
	about, text string
	whole       bool // it is about all members, whoever tells
}

// complaints of a member, the worst first.
func (h health) complaints() []complaint {
	var all []complaint
	complain := func(about, format string, args ...any) {
		all = append(all, complaint{about: about, text: fmt.Sprintf(format, args...)})
	}
	whole := func(about, format string, args ...any) {
		all = append(all, complaint{about: about, text: fmt.Sprintf(format, args...), whole: true})
	}
	for _, alarm := range h.Alarms {
		switch {
		case strings.Contains(alarm, "NOSPACE"):
			whole("NOSPACE of "+raisedBy(alarm), "member %s has reached its quota, and etcd denies every write, so nobody can hold a role: etcdctl compact %d, etcdctl defrag --cluster, etcdctl alarm disarm", raisedBy(alarm), h.Rev)
		case strings.Contains(alarm, "CORRUPT"):
			whole("CORRUPT of "+raisedBy(alarm), "member %s has found its data corrupt: replace that member", raisedBy(alarm))
		}
	}
	if h.Leader == 0 {
		complain("leader", sawNoLeader)
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
	if runsOut(h.Proof) {
		complain("certificate", "the certificate of this member ends at %s: %s", h.Proof.NotAfter.Format(time.RFC3339), cureRenew)
	}
	if runsOut(h.Ours) {
		whole("cert_file", "cert_file of [etcd] ends at %s: %s", h.Ours.NotAfter.Format(time.RFC3339), cureRenew)
	}
	if want := outdated(h.Version); want != "" {
		complain("version", "etcd %s has known bugs that matter here: stale reads after a pause, keep-alives of dead leases, reads beyond what a role is granted; use %s or later", h.Version, want)
	}
	if h.Learner {
		complain("learner", "this member is a learner: it answers no transaction")
	}
	return all
}

// raisedBy is the member that has raised an alarm, as etcdctl spells it: etcd
// tells "memberID:N alarm:NAME", with N in decimal.
func raisedBy(alarm string) string {
	_, rest, _ := strings.Cut(alarm, "memberID:")
	number, _, _ := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return "?"
	}
	return strconv.FormatUint(id, 16)
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

// sleep waits on the Client's clock, unless ctx ends before.
func (c *Client) sleep(ctx context.Context, d time.Duration) {
	t := c.clock.Timer(c.clock.Now().Add(d))
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}
