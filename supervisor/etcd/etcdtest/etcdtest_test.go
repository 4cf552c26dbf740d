package etcdtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// parentEnv makes this binary start a cluster, tell the members' processes,
// and wait to be killed.
const parentEnv = "ETCDTEST_PARENT"

func TestMain(m *testing.M) {
	etcdtest.Main()
	if os.Getenv(parentEnv) != "" {
		parent()
	}
	os.Exit(m.Run())
}

// fast is for tests that do not depend on etcd's own times.
var fast = etcdtest.Options{Heartbeat: 20 * time.Millisecond, Election: 200 * time.Millisecond, NoFsync: true}

func client(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// put writes a key within d.
func put(t *testing.T, c *clientv3.Client, key string, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	_, err := c.Put(ctx, key, "x")
	return err
}

// eventually asks again until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestKillAndRestart(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	old := c.Leader(t.Context())
	c.Member(old).Kill()
	leader := c.Leader(t.Context())
	if leader == old || leader < 0 {
		t.Fatalf("leader after killing %d: %d", old, leader)
	}
	cli := client(t, c.Member(leader).Endpoint())
	eventually(t, "put with one member killed", func() error { return put(t, cli, "a", time.Second) })

	if err := c.Member(old).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := client(t, c.Member(old).Endpoint())
	got, err := back.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 {
		t.Error("the restarted member does not know what was written while it was down")
	}
}

func TestStopAndContinue(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	old := c.Leader(t.Context())
	if err := c.Member(old).Stop(); err != nil {
		t.Fatal(err)
	}
	if leader := c.Leader(t.Context()); leader == old || leader < 0 {
		t.Fatalf("leader after stopping %d: %d", old, leader)
	}
	cli := client(t, c.Member(old).Endpoint())
	if err := put(t, cli, "a", 300*time.Millisecond); err == nil {
		t.Error("a stopped member has answered")
	}
	if err := c.Member(old).Continue(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "put to the continued member", func() error { return put(t, cli, "a", time.Second) })
}

func TestCut(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	old := c.Leader(t.Context())
	c.Cut(old)
	leader := c.Leader(t.Context())
	if leader == old || leader < 0 {
		t.Fatalf("leader after cutting off %d: %d", old, leader)
	}
	alone, others := client(t, c.Member(old).Endpoint()), client(t, c.Member(leader).Endpoint())
	eventually(t, "put to those who are connected", func() error { return put(t, others, "a", time.Second) })
	if err := put(t, alone, "a", 300*time.Millisecond); err == nil {
		t.Error("a member that is cut off has written")
	}
	if _, err := alone.Get(t.Context(), "a", clientv3.WithSerializable()); err != nil {
		t.Errorf("a member that is cut off from its peers does not answer clients: %v", err)
	}
	c.Heal(old)
	eventually(t, "put to the healed member", func() error { return put(t, alone, "b", time.Second) })
}

func TestCutOneWay(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	old := c.Leader(t.Context())
	for i := range c.Size() {
		if i != old {
			c.CutOneWay(old, i)
		}
	}
	if leader := c.Leader(t.Context()); leader == old || leader < 0 {
		t.Fatalf("leader while nobody hears %d: %d", old, leader)
	}
}

func TestCutClientsHoldsBack(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	cli, other := client(t, c.Member(0).Endpoint()), client(t, c.Member(1).Endpoint())
	if err := put(t, cli, "before", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	c.CutClients(0)
	late := make(chan error, 1)
	go func() { late <- put(t, cli, "late", 30*time.Second) }()
	if err := put(t, other, "other", 5*time.Second); err != nil {
		t.Errorf("put at another member: %v", err)
	}
	select {
	case err := <-late:
		t.Fatalf("a member that is cut off from clients has answered: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	c.Heal(0)
	if err := <-late; err != nil {
		t.Errorf("the request that was held back: %v", err)
	}
}

func TestPathIsCutAlone(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	path, err := c.Path()
	if err != nil {
		t.Fatal(err)
	}
	mine, others := client(t, path.Endpoints()...), client(t, c.Endpoints()...)
	if err := put(t, mine, "a", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	path.Cut()
	if err := put(t, mine, "b", 300*time.Millisecond); err == nil {
		t.Error("a member has answered on a path that is cut")
	}
	if err := put(t, others, "c", 5*time.Second); err != nil {
		t.Errorf("put on another path: %v", err)
	}
	path.Heal()
	eventually(t, "put on the healed path", func() error { return put(t, mine, "d", time.Second) })
}

func TestRestoreGoesBack(t *testing.T) {
	c := etcdtest.StartT(t, fast)
	cli := client(t, c.Endpoints()...)
	if err := put(t, cli, "a", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	file, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := put(t, cli, "b"+strconv.Itoa(i), 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	before, err := cli.Get(t.Context(), "b", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Restore(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	var after *clientv3.GetResponse
	eventually(t, "get after the restore", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		after, err = cli.Get(ctx, "", clientv3.WithPrefix())
		return err
	})
	if len(after.Kvs) != 1 || string(after.Kvs[0].Key) != "a" {
		t.Errorf("after the restore there is %v, want a alone", after.Kvs)
	}
	if after.Header.Revision >= before.Header.Revision {
		t.Errorf("revision %d after the restore, %d before", after.Header.Revision, before.Header.Revision)
	}
	if after.Header.ClusterId != before.Header.ClusterId {
		t.Errorf("cluster id %x after the restore, %x before", after.Header.ClusterId, before.Header.ClusterId)
	}
}

// parent starts a cluster whose second member is stopped, and waits.
func parent() {
	c, err := etcdtest.Start(context.Background(), fast)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c.Member(1).Stop()
	fmt.Println(c.Member(0).Pid(), c.Member(1).Pid(), c.Member(2).Pid())
	select {}
}

func TestMembersDieWithTheirParent(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var pids [3]int
	if _, err := fmt.Fscan(out, &pids[0], &pids[1], &pids[2]); err != nil {
		t.Fatalf("read the members' processes: %v", err)
	}
	cmd.Process.Signal(syscall.SIGKILL)
	for i, pid := range pids {
		eventually(t, "end of member "+strconv.Itoa(i), func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
			return fmt.Errorf("still there: %s", stat)
		})
	}
}

func TestMemberThatCannotServe(t *testing.T) {
	opts := fast
	opts.TLS = &etcdtest.TLS{CA: "/nowhere", Cert: "/nowhere", Key: "/nowhere"}
	_, err := etcdtest.Start(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("start with a certificate that is not there: %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		c, err := etcdtest.Start(b.Context(), etcdtest.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Close()
		b.StartTimer()
	}
}
