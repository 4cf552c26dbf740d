package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

const (
	size       = 3
	service    = "orders"
	probeEvery = 2 * time.Millisecond
	settleFor  = 30 * time.Second
)

// A lab is a network with three hosts of one release, etcd and a prober.
type lab struct {
	release
	dir     string // of the run
	etcd    *etcdtest.Cluster
	client  *clientv3.Client
	hosts   []*host
	probe   *prober.Prober
	figures *figures
	probing errgroup.Group
	stop    context.CancelFunc
}

// openLab boots the hosts; nothing is installed on them.
func openLab(ctx context.Context, dir string, r release, f *figures) (_ *lab, err error) {
	l := &lab{release: r, dir: dir, figures: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	l.etcd, err = etcdtest.Start(ctx, etcdtest.Options{
		Dir: filepath.Join(hostsDir(dir), r.suite+"-etcd"), Direct: true, NoFsync: true,
		Listen:    []string{etcdAddr(0).String(), etcdAddr(1).String(), etcdAddr(2).String()},
		Heartbeat: 50 * time.Millisecond, Election: 250 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	l.client, err = clientv3.New(clientv3.Config{Endpoints: l.etcd.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	l.probe, err = prober.New(bridgeName, clientAddr(), netip.AddrPortFrom(serviceAddr(), answersPort), probeEvery)
	if err != nil {
		return nil, err
	}
	probing, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.probing.Go(func() error { return l.probe.Run(probing) })
	for i := range size {
		l.hosts = append(l.hosts, newHost(hostsDir(dir), r, i))
	}
	return l, l.each(func(h *host) error { return l.fresh(ctx, h) })
}

// fresh turns a host on with an empty disk.
func (l *lab) fresh(ctx context.Context, h *host) error {
	if err := h.format(answerFile(l.dir)); err != nil {
		return err
	}
	return l.boot(ctx, h)
}

// reset makes all hosts as they are after an operator has installed and
// enabled everything.
func (l *lab) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the hosts could not be reset in time"))
	defer cancel()
	err := l.each(func(h *host) error {
		if err := errors.Join(h.lose(ctx), h.wipe()); err != nil {
			return err
		}
		if err := l.fresh(ctx, h); err != nil {
			return err
		}
		if err := l.install(ctx, h, oldVersion); err != nil {
			return err
		}
		if err := l.configure(h); err != nil {
			return err
		}
		return l.enable(ctx, h)
	})
	if err != nil {
		return err
	}
	_, err = l.settled(ctx, 0)
	return err
}

// enable starts the service, now and at each boot.
func (l *lab) enable(ctx context.Context, h *host) error {
	_, err := h.run(ctx, "deputy", "enable", service)
	return err
}

// boot turns a host on and has the prober ask at its door.
func (l *lab) boot(ctx context.Context, h *host) error {
	if err := h.boot(ctx); err != nil {
		return err
	}
	mac, err := h.mac(ctx)
	if err != nil {
		return err
	}
	l.probe.Aim(h.name, mac)
	return nil
}

// close turns everything off.
func (l *lab) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := l.each(func(h *host) error { return errors.Join(h.lose(ctx), h.wipe()) })
	if l.probe != nil {
		l.stop()
		err = errors.Join(err, l.probing.Wait(), l.probe.Close())
	}
	if l.client != nil {
		l.client.Close()
	}
	if l.etcd != nil {
		err = errors.Join(err, l.etcd.Close())
	}
	return errors.Join(err, sweepCgroups())
}

// each does the same to all hosts at once.
func (l *lab) each(do func(h *host) error) error {
	var g errgroup.Group
	for _, h := range l.hosts {
		g.Go(func() error { return do(h) })
	}
	return g.Wait()
}

func (l *lab) host(name string) *host {
	for _, h := range l.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// others returns the hosts besides one.
func (l *lab) others(h *host) (found []*host) {
	for _, o := range l.hosts {
		if o != h {
			found = append(found, o)
		}
	}
	return found
}

// install installs the packages of a version as an operator does.
func (l *lab) install(ctx context.Context, h *host, version string) error {
	debs, err := filepath.Glob(filepath.Join(packageDir(l.dir, version), "*.deb"))
	if err != nil {
		return err
	}
	args := []string{"apt-get", "install", "-y", "-q", "--allow-downgrades", "-o", "Dpkg::Use-Pty=0"}
	for _, deb := range debs {
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		at := "/var/tmp/" + version + "-" + filepath.Base(deb)
		if err := h.write(at, string(data)); err != nil {
			return err
		}
		args = append(args, at)
	}
	_, err = h.run(ctx, args...)
	return err
}

// configure writes what an operator writes: the node, and one service.
func (l *lab) configure(h *host) error {
	quoted := make([]string, 0, size)
	for _, e := range l.etcd.Endpoints() {
		quoted = append(quoted, fmt.Sprintf("%q", e))
	}
	node := fmt.Sprintf("address = %q\n\n[etcd]\nendpoints = [%s]\n", h.addr, strings.Join(quoted, ", "))
	if err := h.write("/etc/deputy/deputy.toml", node); err != nil {
		return err
	}
	return h.write(definitionFile, definition(""))
}

const definitionFile = "/etc/deputy/services.d/" + service + ".toml"

// definition is that of the service that is probed, with further settings.
func definition(more string) string {
	return fmt.Sprintf(`description = "An address that answers"
ttl = "3s"
%s
[[plugin]]
use    = "vip"
config = { address = "%s/32", interface = "host0" }
`, more, serviceAddr())
}

// records are what etcd has about the service.
type records struct {
	primary    supervisor.Primary // zero when there is none
	candidates map[string]supervisor.Candidate
}

func (l *lab) records(ctx context.Context) (records, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	prefix := "/deputy/v1/services/" + service + "/"
	reply, err := l.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return records{}, fmt.Errorf("read the records: %w", err)
	}
	r := records{candidates: make(map[string]supervisor.Candidate)}
	for _, kv := range reply.Kvs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		if key == "primary" {
			if err := json.Unmarshal(kv.Value, &r.primary); err != nil {
				return records{}, err
			}
		} else if node, ok := strings.CutPrefix(key, "candidates/"); ok {
			var c supervisor.Candidate
			if err := json.Unmarshal(kv.Value, &c); err != nil {
				return records{}, err
			}
			r.candidates[node] = c
		}
	}
	return r, nil
}

// isServed reports whether a primary of a later term answers.
func (l *lab) isServed(r records, after sdk.Term) bool {
	who, ago := l.probe.Answering()
	return r.primary.State == sdk.RolePrimary && r.primary.Term > after && who == r.primary.Node && ago < 100*time.Millisecond
}

// isSettled reports whether, besides, all other hosts that are on are
// candidates.
func (l *lab) isSettled(r records, after sdk.Term) bool {
	for _, h := range l.hosts {
		c, ok := r.candidates[h.name]
		role := sdk.RoleCandidate
		if h.name == r.primary.Node {
			role = sdk.RolePrimary
		}
		if h.isOn() && (!ok || c.Role != role) {
			return false
		}
	}
	return l.isServed(r, after)
}

// settled waits until the service has a primary in a term after the given one,
// and all that are on take part.
func (l *lab) settled(ctx context.Context, after sdk.Term) (supervisor.Primary, error) {
	return l.until(ctx, after, l.isSettled)
}

// until waits until the records are as they should be.
func (l *lab) until(ctx context.Context, after sdk.Term, ok func(r records, after sdk.Term) bool) (supervisor.Primary, error) {
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	for {
		r, err := l.records(ctx)
		if err == nil && ok(r, after) {
			return r.primary, nil
		}
		select {
		case <-ctx.Done():
			who, ago := l.probe.Answering()
			roles := make(map[string]string)
			for node, c := range r.candidates {
				roles[node] = fmt.Sprintf("%s (%s)", c.Role, c.Verdict)
			}
			return r.primary, fmt.Errorf("the role is not settled within %s in a term after %d: primary is %+v, the others are %v, %s answered %s ago", settleFor, after, r.primary, roles, who, ago)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// now is CLOCK_BOOTTIME, as the prober has it.
func now() prober.Instant { return prober.Now() }

// await waits until ok is true.
func await(t *testing.T, atMost time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := now() + atMost; !ok(); time.Sleep(2 * time.Millisecond) {
		if now() > deadline {
			t.Fatalf("not within %s: %s", atMost, what)
		}
	}
}
