package etcd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// plainClient is etcd's own client, to look at what Clients do.
func plainClient(t testing.TB, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

func testCompaction(t *testing.T, c *etcdtest.Cluster) {
	cli, ctx := plainClient(t, c), t.Context()
	r, err := cli.Put(ctx, "/other/key", "old")
	if err != nil {
		t.Fatal(err)
	}
	old := r.Header.Revision
	if _, err := cli.Put(ctx, "/other/key", "new"); err != nil {
		t.Fatal(err)
	}
	const age = 300 * time.Millisecond
	for _, node := range []string{"a", "b", "c"} {
		startReal(t, c, node, func(cfg *Config) { cfg.Compact = age })
	}
	begin := time.Now()
	for {
		_, err := cli.Get(ctx, "/other/key", clientv3.WithRev(old))
		if errors.Is(err, rpctypes.ErrCompacted) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("nothing is compacted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(begin); took < age {
		t.Errorf("compacted after %v, younger than %v", took, age)
	}
	if got, err := cli.Get(ctx, "/other/key"); err != nil || string(got.Kvs[0].Value) != "new" {
		t.Errorf("the newest value: %v, %v", got, err)
	}
	// One process at a time: of three, each with its own beat, only the record
	// of one changes within the age.
	key := newKeys("/"+strings.ReplaceAll(t.Name(), "/", "-")).root + "compact"
	first, err := cli.Get(ctx, key)
	if err != nil || len(first.Kvs) != 1 {
		t.Fatalf("the record of who compacts: %v, %v", first, err)
	}
	from, turns := time.Now(), int64(8)
	for {
		got, err := cli.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got.Kvs[0].Version >= first.Kvs[0].Version+turns {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if took := time.Since(from); took < time.Duration(turns-1)*age {
		t.Errorf("%d turns within %v: more than one process compacts", turns, took)
	}
}

func testOrphanPulses(t *testing.T, c *etcdtest.Cluster) {
	const ttl = 300 * time.Millisecond
	ctx, desk, a := t.Context(), realClient(t, c, "desk"), startReal(t, c, "a")
	// Of a process that died without a tenure.
	orphan := desk.keys.pulse("orphan")
	if _, err := desk.txn(ctx, txn{Then: []op{put(orphan, encode(pulseRecord{Node: "x", TTL: ttl.Milliseconds(), Count: 1}))}}); err != nil {
		t.Fatal(err)
	}
	// Of a process that died as primary.
	takeReal(t, a, "db", ttl).Abandon()
	a.stop()
	st, err := desk.State(ctx, "db")
	if err != nil {
		t.Fatal(err)
	}
	startReal(t, c, "b", func(cfg *Config) { cfg.Compact = 200 * time.Millisecond })
	begin := time.Now()
	for {
		r, err := desk.read(ctx, one(orphan))
		if err != nil {
			t.Fatal(err)
		}
		if !r.first(0).exists() {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the orphan is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(begin); took < orphanAfter*ttl {
		t.Errorf("the orphan was deleted after %v, want %d times its TTL at least", took, orphanAfter)
	}
	r, err := desk.read(ctx, one(desk.keys.pulse(st.Primary.Pulse)))
	if err != nil || !r.first(0).exists() {
		t.Errorf("the pulse that a tenure hangs on was deleted: %v", err)
	}
}

func testInspect(t *testing.T, c *etcdtest.Cluster) {
	desk := realClient(t, c, "desk")
	in := desk.Inspect(t.Context())
	// On a busy machine it elects a leader now and then, which is no fault of it.
	for end := time.Now().Add(30 * time.Second); !in.OK() && time.Now().Before(end); in = desk.Inspect(t.Context()) {
		time.Sleep(100 * time.Millisecond)
	}
	if !in.OK() {
		t.Errorf("a sound etcd is complained of: %+v", in)
	}
	leaders := 0
	for _, e := range in.Endpoints {
		if e.Leader {
			leaders++
		}
		if e.Version == "" || e.Quota == 0 || e.DBSize == 0 || e.Latency == 0 || e.Cluster != in.Endpoints[0].Cluster {
			t.Errorf("endpoint: %+v", e)
		}
	}
	if leaders != 1 {
		t.Errorf("%d endpoints lead, want 1", leaders)
	}
	two := realClient(t, c, "desk", func(cfg *Config) { cfg.Endpoints = cfg.Endpoints[:2] }).Inspect(t.Context())
	if len(two.Complaints) != 1 || !strings.Contains(two.Complaints[0], "3 members, and endpoints names 2") {
		t.Errorf("with an endpoint left out: %q", two.Complaints)
	}
}

func TestInspectTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := etcdtest.StartT(t, etcdtest.Options{Members: 1, NoFsync: true, Quota: 4 << 20, Heartbeat: quick.Heartbeat, Election: quick.Election})
	desk, cli := realClient(t, c, "desk"), plainClient(t, c)
	in := desk.Inspect(t.Context())
	if len(in.Complaints) != 1 || !strings.Contains(in.Complaints[0], "has one member") {
		t.Errorf("with one member: %q", in.Complaints)
	}
	big := strings.Repeat("x", 256<<10)
	var err error
	for err == nil {
		_, err = cli.Put(t.Context(), "/big", big)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatal(err)
	}
	in = desk.Inspect(t.Context())
	all := strings.Join(append(in.Complaints, in.Endpoints[0].Complaints...), "\n")
	for _, want := range []string{"reached its quota, and etcd denies every write", "of 4 MiB"} {
		if !strings.Contains(all, want) {
			t.Errorf("complaints at the quota: %q, want %q", all, want)
		}
	}
	if !strings.Contains(in.Endpoints[0].Problem, "alarm disarm") {
		t.Errorf("problem at the quota: %q", in.Endpoints[0].Problem)
	}
	c.Member(0).Kill()
	in = desk.Inspect(t.Context())
	if p := in.Endpoints[0].Problem; !strings.Contains(p, c.Endpoints()[0]) {
		t.Errorf("problem of an endpoint that is down: %q", p)
	}
}
