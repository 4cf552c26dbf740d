package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// An outage is what the loss of etcd's leader does to the leases of one TTL:
// for how long, at most, none was renewed, reckoned as the lease itself does,
// from the sending of the last acknowledged pulse to the acknowledgement of
// the next; and how many were lost.
type outage struct {
	ttl  time.Duration
	gaps []time.Duration // of each loss of the leader, the longest
	lost int
}

func (o outage) String() string {
	gaps := slices.Sorted(slices.Values(o.gaps))
	at := func(share float64) time.Duration {
		return gaps[min(int(share*float64(len(gaps))), len(gaps)-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("ttl %v: lost %d of %d; longest time without a renewal: min %v, median %v, 90 %% %v, max %v (lost at %v)",
		o.ttl, o.lost, len(o.gaps), at(0), at(0.5), at(0.9), at(1), supervisor.NewTiming(o.ttl).Lost)
}

// A renewal measures one lease.
type renewal struct {
	mu      sync.Mutex
	sent    sdk.Instant // s of the last acknowledged pulse
	longest time.Duration
	lost    bool
}

func (r *renewal) follow(ctx context.Context, l supervisor.Lease, ttl time.Duration) {
	clock, until := bootClock{}, supervisor.NewTiming(ttl).Until
	lost := l.Lost()
	for {
		select {
		case <-l.Renewed():
		case <-lost:
			r.mu.Lock()
			r.lost = true
			r.mu.Unlock()
			lost = nil // renewing goes on
			continue
		case <-ctx.Done():
			return
		}
		now, sent := clock.Now(), l.Until().Add(-until)
		r.mu.Lock()
		if r.sent != 0 {
			r.longest = max(r.longest, now.Sub(r.sent))
		}
		r.sent = sent
		r.mu.Unlock()
	}
}

// result returns what was measured.
func (r *renewal) result() (longest time.Duration, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.longest, r.lost
}

// measureOutages takes etcd's leader away again and again, and brings it back
// after away, and measures leases of several TTLs meanwhile.
func measureOutages(b testing.TB, opts etcdtest.Options, times int, away time.Duration, ttls []time.Duration,
	lose func(*etcdtest.Member) error, bring func(*etcdtest.Member) error,
) []*outage {
	c := etcdtest.StartT(b, opts)
	outages := make([]*outage, len(ttls))
	for i, ttl := range ttls {
		outages[i] = &outage{ttl: ttl}
	}
	for range times {
		ctx, cancel := context.WithCancelCause(b.Context())
		var wg sync.WaitGroup
		var stops []func()
		var renewals []*renewal
		for _, ttl := range ttls {
			n := startReal(b, c, "n"+strings.ReplaceAll(ttl.String(), ".", "-"))
			l := takeReal(b, n, "db-"+ttl.String(), ttl)
			r := &renewal{}
			wg.Go(func() { r.follow(ctx, l, ttl) })
			renewals = append(renewals, r)
			stops = append(stops, func() {
				if err := l.Resign(b.Context()); err != nil {
					b.Logf("resign: %v", err)
				}
				n.stop()
			})
		}
		time.Sleep(time.Second)
		leader := c.Member(c.Leader(b.Context()))
		if err := lose(leader); err != nil {
			b.Fatal(err)
		}
		time.Sleep(away)
		if err := bring(leader); err != nil {
			b.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for i, r := range renewals {
			gap, lost := r.result()
			outages[i].gaps = append(outages[i].gaps, gap)
			if lost {
				outages[i].lost++
			}
		}
		cancel(errors.New("measured"))
		wg.Wait()
		for _, stop := range stops {
			stop()
		}
	}
	return outages
}

// BenchmarkLeaderLoss measures what the loss of etcd's leader does to leases:
//
//	go test -run '^$' -bench LeaderLoss -benchtime 20x -timeout 20m ./supervisor/etcd
func BenchmarkLeaderLoss(b *testing.B) {
	for _, etcd := range []struct {
		heartbeat, election time.Duration
		ttls                []time.Duration
	}{
		{100 * time.Millisecond, time.Second, []time.Duration{2 * time.Second, 2500 * time.Millisecond, 3 * time.Second, 3500 * time.Millisecond, 4 * time.Second, 5 * time.Second}},
		{100 * time.Millisecond, 500 * time.Millisecond, []time.Duration{time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second}},
		{50 * time.Millisecond, 250 * time.Millisecond, []time.Duration{500 * time.Millisecond, 700 * time.Millisecond, time.Second, 1500 * time.Millisecond}},
	} {
		for _, fault := range []struct {
			name        string
			lose, bring func(*etcdtest.Member) error
		}{
			{
				"killed",
				func(m *etcdtest.Member) error { m.Kill(); return nil },
				func(m *etcdtest.Member) error { return m.Restart(b.Context()) },
			},
			{"stopped", (*etcdtest.Member).Stop, (*etcdtest.Member).Continue},
		} {
			b.Run(fmt.Sprintf("heartbeat=%v/election=%v/%s", etcd.heartbeat, etcd.election, fault.name), func(b *testing.B) {
				longest := slices.MaxFunc(etcd.ttls, cmp.Compare)
				opts := etcdtest.Options{Heartbeat: etcd.heartbeat, Election: etcd.election, Direct: true}
				for _, o := range measureOutages(b, opts, b.N, longest+time.Second, etcd.ttls, fault.lose, fault.bring) {
					fmt.Printf("\n%s: %v", b.Name(), o) // a benchmark's own log is cut short
				}
			})
		}
	}
}
