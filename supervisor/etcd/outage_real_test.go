package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// An outage is what the losses of etcd's leader do to the leases of one TTL.
type outage struct {
	ttl  time.Duration
	lost int
	// For how long, at most, none was renewed: as the lease itself reckons,
	// from the sending of the last acknowledged pulse to the acknowledgement
	// of the next.
	gaps []time.Duration
	// From the election of another leader to the first acknowledged pulse that
	// was sent after the loss: what is ours of it.
	lags []time.Duration
}

func (o outage) String() string {
	return fmt.Sprintf("ttl %-4v lost %2d of %d; without renewal %s (lost at %v); after etcd's election %s",
		o.ttl, o.lost, len(o.gaps), spread(o.gaps), supervisor.NewTiming(o.ttl).Lost, spread(o.lags))
}

// spread tells the distribution of durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(share float64) string {
		d := sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
		return strconv.FormatFloat(d.Seconds(), 'f', 2, 64)
	}
	return fmt.Sprintf("%s/%s/%s/%s s", at(0), at(0.5), at(0.9), at(1))
}

// A renewal measures one lease.
type renewal struct {
	mu      sync.Mutex
	sent    sdk.Instant // s of the last acknowledged pulse
	longest time.Duration
	from    sdk.Instant // when the leader was lost; 0 before
	first   sdk.Instant // when the first pulse sent after that was acknowledged
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
		if r.first == 0 && r.from != 0 && sent >= r.from {
			r.first = now
		}
		r.sent = sent
		r.mu.Unlock()
	}
}

func (r *renewal) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = bootClock{}.Now()
}

// A loss is how etcd's leader is taken away, and brought back.
type loss struct {
	name        string
	lose, bring func(context.Context, *etcdtest.Member) error
}

func losses() []loss {
	return []loss{
		{
			"killed",
			func(_ context.Context, m *etcdtest.Member) error { m.Kill(); return nil },
			func(ctx context.Context, m *etcdtest.Member) error { return m.Restart(ctx) },
		},
		{
			"stopped",
			func(_ context.Context, m *etcdtest.Member) error { return m.Stop() },
			func(_ context.Context, m *etcdtest.Member) error { return m.Continue() },
		},
	}
}

// measureOutages takes etcd's leader away so many times, each time for longer
// than the longest of the TTLs, while a lease of each is held.
func measureOutages(t testing.TB, opts etcdtest.Options, times int, ttls []time.Duration, l loss) (outages []*outage, elections []time.Duration) {
	c := etcdtest.StartT(t, opts)
	for _, ttl := range ttls {
		outages = append(outages, &outage{ttl: ttl})
	}
	for range times {
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		var ends []func()
		var renewals []*renewal
		for i, ttl := range ttls {
			n := startReal(t, c, "n"+strconv.Itoa(i))
			held := takeReal(t, n, "db"+strconv.Itoa(i), ttl)
			r := &renewal{}
			wg.Go(func() { r.follow(ctx, held, ttl) })
			renewals = append(renewals, r)
			ends = append(ends, func() {
				if err := held.Resign(t.Context()); err != nil {
					t.Errorf("resign: %v", err)
				}
				n.stop()
				_ = n.Close()
			})
		}
		// Leases are renewed at a steady pace: not always at the same point of it.
		time.Sleep(time.Second + rand.N(time.Second))
		for _, r := range renewals {
			r.begin()
		}
		member := c.Member(c.Leader(ctx))
		from := bootClock{}.Now()
		if err := l.lose(ctx, member); err != nil {
			t.Fatal(err)
		}
		c.Leader(ctx)
		elected := bootClock{}.Now()
		elections = append(elections, elected.Sub(from))
		time.Sleep(slices.MaxFunc(ttls, cmp.Compare) + time.Second - elected.Sub(from))
		if err := l.bring(ctx, member); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		cancel(errors.New("measured"))
		wg.Wait()
		for i, r := range renewals {
			o := outages[i]
			o.gaps = append(o.gaps, r.longest)
			o.lags = append(o.lags, r.first.Sub(elected))
			if r.lost {
				o.lost++
			}
			ends[i]()
		}
	}
	return outages, elections
}

// TestLeaderLossCostsNoLease holds that a lease long enough for etcd's own
// election, and for a busy machine, outlives it.
func TestLeaderLossCostsNoLease(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for several elections of etcd")
	}
	for _, l := range losses() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			opts := etcdtest.Options{Heartbeat: 50 * time.Millisecond, Election: 250 * time.Millisecond, NoFsync: true}
			outages, elections := measureOutages(t, opts, 1, []time.Duration{8 * time.Second}, l)
			t.Logf("etcd elected after %s; %v", spread(elections), outages[0])
			if outages[0].lost > 0 {
				t.Errorf("lost %d of %d leases", outages[0].lost, len(outages[0].gaps))
			}
		})
	}
}

// BenchmarkLeaderLoss measures what the loss of etcd's leader does to leases,
// as minimum, median, 90th percentile and maximum:
//
//	go test -run '^$' -bench LeaderLoss -benchtime 20x -timeout 30m ./supervisor/etcd
func BenchmarkLeaderLoss(b *testing.B) {
	const ms = time.Millisecond
	for _, etcd := range []struct {
		heartbeat, election time.Duration
		ttls                []time.Duration
	}{
		{100 * ms, 1000 * ms, []time.Duration{2000 * ms, 3000 * ms, 4000 * ms, 5000 * ms}},
		{100 * ms, 500 * ms, []time.Duration{1000 * ms, 2000 * ms, 3000 * ms}},
		{50 * ms, 250 * ms, []time.Duration{500 * ms, 1000 * ms, 1500 * ms}},
	} {
		for _, l := range losses() {
			b.Run(fmt.Sprintf("election=%v/%s", etcd.election, l.name), func(b *testing.B) {
				opts := etcdtest.Options{Heartbeat: etcd.heartbeat, Election: etcd.election, Direct: true}
				outages, elections := measureOutages(b, opts, b.N, etcd.ttls, l)
				// A benchmark's own log is cut short.
				fmt.Printf("\n%s: etcd elected after %s\n", b.Name(), spread(elections))
				for _, o := range outages {
					fmt.Println(o)
				}
			})
		}
	}
}
