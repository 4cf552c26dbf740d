package etcd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// A disk is a file system of its own whose writes can be held back, as those of
// a disk that hangs.
type disk struct {
	t   *testing.T
	dir string
}

func newDisk(t *testing.T, dir string) *disk {
	t.Helper()
	lacks := func(what string, err error) {
		t.Helper()
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: %v", what, err)
		}
		t.Skipf("cannot make a disk that hangs: %s: %v", what, err)
	}
	if os.Geteuid() != 0 {
		lacks("mount", os.ErrPermission)
	}
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			lacks(cmd[0], fmt.Errorf("%w: %s", err, out))
		}
	}
	d := &disk{t: t, dir: dir}
	t.Cleanup(func() {
		d.thaw()
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return d
}

func (d *disk) freeze() {
	d.t.Helper()
	if out, err := exec.Command("fsfreeze", "-f", d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("fsfreeze: %v: %s", err, out)
	}
}

// thaw may be called again.
func (d *disk) thaw() { _ = exec.Command("fsfreeze", "-u", d.dir).Run() }

func TestEtcdDiskStalled(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	opts := direct()
	opts.Dir, opts.NoFsync = t.TempDir(), false
	var disks []*disk
	for i := range 3 {
		disks = append(disks, newDisk(t, filepath.Join(opts.Dir, "m"+strconv.Itoa(i))))
	}
	c := etcdtest.StartT(t, opts)
	t.Cleanup(func() { // before etcd is killed, which waits for its writes
		for _, d := range disks {
			d.thaw()
		}
	})
	a, b := admit(t, c, "a", ttl), admit(t, c, "b", ttl)
	lease := a.primary()
	b.sees("held", isHeld)
	for _, whom := range []string{"follower", "leader"} {
		t.Run(whom, func(t *testing.T) {
			victim := c.Leader(t.Context())
			if whom == "follower" {
				victim = (victim + 1) % 3
			}
			end := c.Endpoints()[victim]
			disks[victim].freeze()
			defer disks[victim].thaw()
			a.says(saidCare, "endpoint="+end, "this member answers and carries out nothing: "+cureStalled)
			a.keeps(lease, ttl/2)
			if st := b.states.get(); st.Vacant {
				t.Errorf("b may take the role: %+v", st)
			}
			in := a.Inspect(t.Context())
			if p := in.Endpoints[victim].Problem; !strings.Contains(p, cureStalled) {
				t.Errorf("inspect: %q", p)
			}
			if n := a.count(saidCare, end, "carries out nothing"); n != 1 {
				t.Errorf("said %d times, want once", n)
			}
			disks[victim].thaw()
			a.says(saidCured, "endpoint="+end, "about=silence")
			a.keeps(lease, 100*time.Millisecond)
		})
	}
}

// A restored etcd has forgotten who is primary: the one that is lost loses the
// role at once, and nobody else takes it before its lease must be over. The
// cluster's id may stay as it was, or not.
func TestEtcdRestored(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name    string
		restore func(*etcdtest.Cluster) func(*testing.T, string) error
		why     []string
	}{
		{"as the same cluster", func(c *etcdtest.Cluster) func(*testing.T, string) error {
			return func(t *testing.T, file string) error { return c.Restore(t.Context(), file) }
		}, []string{"and not as it was at", "it was restored from a backup"}},
		{"as another cluster", func(c *etcdtest.Cluster) func(*testing.T, string) error {
			return func(t *testing.T, file string) error { return c.RestoreAnew(t.Context(), file) }
		}, []string{"etcd is another cluster than before: "}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			const ttl = 2 * time.Second
			opts := direct()
			opts.Members = 1
			c := etcdtest.StartT(t, opts)
			wa, wb := &witness{}, &witness{}
			a := admit(t, c, "a", ttl, remembers(wa))
			b := admit(t, c, "b", ttl, remembers(wb))
			if err := a.primary().Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.sees("vacant after a term", func(st supervisor.State) bool { return isVacant(st) && st.Term.Term == 1 })
			waitMarked(t, wb)
			file, err := c.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lease := a.primary()
			b.sees("held", isHeld)
			var written int64
			for range 10 {
				r, err := plainClient(t, c).Put(t.Context(), "/other", "")
				if err != nil {
					t.Fatal(err)
				}
				written = r.Header.Revision
			}
			for rev := int64(0); rev < written; _, rev, _ = b.past.now() {
				time.Sleep(10 * time.Millisecond) // b sees that by its next pulse
			}
			held := lease.Until()
			if err := r.restore(c)(t, file); err != nil {
				t.Fatal(err)
			}
			loses(t, lease)
			st := b.sees("frozen", func(st supervisor.State) bool { return st.Frozen != "" })
			if !hasAll(st.Frozen, append(r.why, "nobody here campaigns for "+ttl.String())) {
				t.Errorf("frozen: %s", st.Frozen)
			}
			b.says(saidReplace, "cluster=", "revision=")
			b.says(saidStrange, r.why[0])
			next := b.primary()
			if now := (bootClock{}).Now(); now < held {
				t.Errorf("b took the role at %v, when a's lease held until %v at least", now, held)
			}
			if next.Term() != 3 {
				t.Errorf("term %d, want one above the highest seen", next.Term())
			}
		})
	}
}

func remembers(w *witness) func(*Config) { return func(cfg *Config) { cfg.Witness = w } }

// waitMarked waits until a node remembers the mark of the records.
func waitMarked(t *testing.T, w *witness) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if seen, _ := w.LoadSeen("db"); seen.Origin != "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the node does not remember whose records these are")
		}
	}
}

func TestEtcdOfOthers(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	opts := direct()
	opts.Members = 1
	ours, theirs := etcdtest.StartT(t, opts), etcdtest.StartT(t, opts)
	a := admit(t, ours, "a", ttl)
	lease := a.primary()
	at := func(ends ...string) func(*Config) { return func(cfg *Config) { cfg.Endpoints = ends } }
	// knowing is a node that knows our etcd already.
	knowing := func(t *testing.T) func(*Config) {
		w := &witness{}
		n := admit(t, ours, "b", ttl, remembers(w), prefixOf(a))
		n.sees("held", isHeld)
		waitMarked(t, w)
		n.stop()
		return func(cfg *Config) { cfg.Witness = w; cfg.Prefix = a.cfg.Prefix }
	}
	never := func(t *testing.T, p *patient) {
		t.Helper()
		if st, vacant := p.states.await(isVacant, 2*ttl+time.Second); vacant {
			t.Errorf("%s may take the role, which a has: %+v", p.name, st)
		}
		a.keeps(lease, 0)
	}
	t.Run("all endpoints", func(t *testing.T) {
		t.Parallel()
		p := admit(t, theirs, "b", ttl, knowing(t))
		want := []string{"etcd is another cluster than before: ", "in /var/lib/deputy/db/seen.json", "a node with the old one may be primary", cureStrange}
		p.sees("frozen", func(st supervisor.State) bool { return hasAll(st.Frozen, want) })
		p.says(saidStrange, "etcd is another cluster than before")
		never(t, p)
		if n := p.count(saidStrange); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
	})
	t.Run("one of two endpoints", func(t *testing.T) {
		t.Parallel()
		p := admit(t, ours, "b", ttl, knowing(t), at(theirs.Endpoints()[0], ours.Endpoints()[0]))
		p.sees("held", isHeld)
		p.says(saidCare, "endpoint="+theirs.Endpoints()[0], "this endpoint belongs to etcd cluster", "the others to", cureForeign)
		never(t, p)
		in := p.Inspect(t.Context())
		if got := strings.Join(in.Complaints, "\n"); !strings.Contains(got, "the endpoints belong to 2 etcd clusters") {
			t.Errorf("inspect: %q", got)
		}
	})
	t.Run("one of two endpoints, at the first start", func(t *testing.T) {
		t.Parallel()
		p := admit(t, theirs, "c", ttl, prefixOf(a), at(theirs.Endpoints()[0], ours.Endpoints()[0]))
		p.sees("frozen", func(st supervisor.State) bool {
			return hasAll(st.Frozen, []string{"the endpoints belong to 2 etcd clusters", theirs.Endpoints()[0], ours.Endpoints()[0], cureForeign})
		})
		never(t, p)
	})
	t.Run("another prefix", func(t *testing.T) {
		t.Parallel()
		p := admit(t, ours, "b", ttl, knowing(t), func(cfg *Config) { cfg.Prefix += "-other" })
		p.sees("frozen", func(st supervisor.State) bool {
			return hasAll(st.Frozen, []string{"the prefix is another than before: ", "in /var/lib/deputy/db/seen.json", cureStrange})
		})
		never(t, p)
	})
}

func prefixOf(p *patient) func(*Config) {
	return func(cfg *Config) { cfg.Prefix = p.cfg.Prefix }
}

// When etcd is full nobody can renew, so the primary leaves its role in time,
// and nobody else has it until etcd is mended; then all goes on by itself.
func TestEtcdFull(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	opts := direct()
	opts.Members, opts.Quota = 1, 8<<20
	c := etcdtest.StartT(t, opts)
	a, b := admit(t, c, "a", ttl), admit(t, c, "b", ttl)
	lease := a.primary()
	cli, ctx := plainClient(t, c), t.Context()
	fill := func() error {
		_, err := cli.Put(ctx, "/big", strings.Repeat("x", 512<<10))
		return err
	}
	// Warned long before.
	for a.Inspect(ctx).Endpoints[0].DBSize < 13<<19 {
		if err := fill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond) // etcd counts what is on its disk
	}
	a.says(saidCare, "endpoint="+c.Endpoints()[0], "MiB of 8 MiB", "when it is full nobody can hold a role", "compact it, or raise --quota-backend-bytes")
	a.keeps(lease, time.Second)

	for fill() == nil {
	}
	loses(t, lease)
	want := []string{"database space exceeded", "etcdctl compact", "etcdctl defrag --cluster", "etcdctl alarm disarm"}
	if cause := lease.Cause().Error(); !hasAll(cause, want) {
		t.Errorf("lost because %q", cause)
	}
	member := strconv.FormatUint(memberOf(t, cli, c.Endpoints()[0]), 16)
	for _, p := range []*patient{a, b} {
		p.sees("unreachable", func(st supervisor.State) bool { return hasAll(st.Unreachable, want) })
		p.says(saidCare, "endpoint=all", "member "+member+" has reached its quota", "etcdctl compact ")
	}
	if st, vacant := b.states.await(func(st supervisor.State) bool { return isVacant(st) && isReachable(st) }, 2*ttl); vacant {
		t.Errorf("b takes the role for free while nobody can write: %+v", st)
	}

	r, err := cli.Get(ctx, "/big")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Defragment(ctx, c.Endpoints()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*patient{a, b} {
		p.sees("reachable", isReachable)
		p.says(saidCured, "about=\"NOSPACE of "+member)
	}
	if err := lease.Resign(ctx); err != nil {
		t.Errorf("resign: %v", err)
	}
	if next := b.primary(); next.Term() != 2 {
		t.Errorf("term %d, want 2", next.Term())
	}
}

func memberOf(t *testing.T, cli *clientv3.Client, endpoint string) uint64 {
	t.Helper()
	s, err := cli.Status(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return s.Header.MemberId
}

// A wrong prefix at the first start of a node cannot be told from a cluster of
// its own, so it has a primary of its own. It is told, by both.
func TestEtcdPrefixOfOthers(t *testing.T) {
	t.Parallel()
	opts := direct()
	opts.Members = 1
	c := etcdtest.StartT(t, opts)
	at := func(prefix string) func(*Config) { return func(cfg *Config) { cfg.Prefix = prefix } }
	const hash = "f00d"
	var all []*patient
	for node, prefix := range map[string]string{"a": "/ha/deputy", "b": "/ha/deputi"} {
		p := admit(t, c, node, 3*time.Second, at(prefix))
		p.primary()
		if err := p.e.Publish(t.Context(), supervisor.Candidate{Node: supervisor.Node{Name: node}, Hash: hash}); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	// Of these nobody is to be told.
	cli := plainClient(t, c)
	for key, value := range map[string]string{
		"/ha/x": "", "/registry/pods/x": "", "/deputy/v1/services/db/candidates/z": `{"name": "z", "hash": "other"}`,
		"/ha/deputy-test/v1/services/cache/candidates/z": `{"name": "z", "hash": "f00d"}`,
	} {
		if _, err := cli.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range all {
		other := all[1-i]
		want := []string{"service db is defined alike under another prefix, " + other.cfg.Prefix + ", with " + other.name, cureNeighbour}
		p.says(append(want, saidCare)...)
		got := p.Neighbours(t.Context(), map[string]string{"db": hash, "cache": hash})
		if len(got) != 2 || !hasAll(strings.Join(got, "\n"), want) {
			t.Errorf("neighbours of %s: %q", p.cfg.Prefix, got)
		}
		if got := p.Neighbours(t.Context(), map[string]string{"db": "f11d"}); len(got) != 0 {
			t.Errorf("neighbours of %s with another definition: %q", p.cfg.Prefix, got)
		}
	}
}
