package e2e

import (
	"context"
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
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

const (
	size       = 3
	probeEvery = 2 * time.Millisecond
	// What is to come by itself may take this long. The polkit of Debian 12 (122)
	// signals what it waits for without its mutex, so a wake-up may be lost, and
	// then its answer takes 15 s.
	settleFor = 30 * time.Second
	etcdFor   = time.Minute
)

// A lab is a network with three hosts of one release, etcd and a prober.
type lab struct {
	release
	setup
	dir      string // of the run
	data     string // etcd's
	etcd     *etcdtest.Cluster
	client   *clientv3.Client
	hosts    []*host
	services []*watched // those that are enabled
	orders   *watched   // the first of them
	probe    *prober.Prober
	notes    *notes
	health   *health // of orders
	figures  *figures
	probing  errgroup.Group
	stop     context.CancelFunc
}

// A setup is what differs between labs.
type setup struct {
	ttl                 time.Duration
	heartbeat, election time.Duration // etcd's defaults where zero
	queue               bool          // the services that manage units are enabled besides orders

	first func(ttl time.Duration) *watched // in the place of orders
	dress func(h *host) error              // what a host has besides, before it is turned on
}

// quick is a setup whose etcd is back soon.
func quick(ttl time.Duration) setup {
	return setup{ttl: ttl, heartbeat: 50 * time.Millisecond, election: 250 * time.Millisecond}
}

// openLab boots the hosts; nothing is installed on them.
func openLab(ctx context.Context, dir string, r release, what setup, f *figures) (_ *lab, err error) {
	l := &lab{release: r, setup: what, dir: dir, figures: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	// Labs come one after the other, and each has an etcd of its own.
	l.data, err = os.MkdirTemp(hostsDir(dir), r.suite+"-etcd-")
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeoutCause(ctx, etcdFor, fmt.Errorf("etcd has not started within %s", etcdFor))
	defer cancel()
	l.etcd, err = etcdtest.Start(starting, etcdtest.Options{
		Dir: l.data, Direct: true, NoFsync: true,
		Listen:    []string{etcdAddr(0).String(), etcdAddr(1).String(), etcdAddr(2).String()},
		Heartbeat: l.heartbeat, Election: l.election,
	})
	if err != nil {
		return nil, err
	}
	l.client, err = clientv3.New(clientv3.Config{Endpoints: l.etcd.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	probing, err := l.ask()
	if err != nil {
		return nil, err
	}
	first := l.first
	if first == nil {
		first = ordersService
	}
	l.orders = l.watch(first(l.ttl))
	if l.queue {
		l.watch(queueService(l.ttl))
		l.watch(parserService(l.ttl))
	}
	l.notes = &notes{of: make(map[string]map[int64]note)}
	for _, endpoint := range l.etcd.Endpoints() {
		l.probing.Go(func() error { return l.notes.take(probing, endpoint) })
	}
	for i := range size {
		h := newHost(hostsDir(dir), r, hostName(i), i)
		h.own = l.probe.Service()
		h.own.Ask(netip.AddrPortFrom(h.addr, answersPort))
		l.hosts = append(l.hosts, h)
	}
	l.health = &health{service: l.orders.name}
	if l.first == nil { // what else is in its place is looked at by its clients, who have few processors
		for _, h := range l.hosts {
			l.probing.Go(func() error { return l.health.ask(probing, h) })
		}
	}
	return l, l.each(func(h *host) error { return l.fresh(ctx, h) })
}

// ask has a prober ask until off; so long the returned context lasts.
func (l *lab) ask() (probing context.Context, err error) {
	if l.probe, err = prober.New(bridgeName, clientAddr(), probeEvery); err != nil {
		return nil, err
	}
	probing, l.stop = context.WithCancel(context.Background())
	l.probing.Go(func() error { return l.probe.Run(probing) })
	return probing, nil
}

// fresh turns a host on with an empty disk.
func (l *lab) fresh(ctx context.Context, h *host) error {
	if err := h.format(answerFile(l.dir)); err != nil {
		return err
	}
	if l.dress != nil {
		if err := l.dress(h); err != nil {
			return err
		}
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
		return l.fresh(ctx, h)
	})
	if err != nil {
		return err
	}
	return l.equip(ctx)
}

// equip has an operator install and enable everything on hosts that are fresh,
// and returns once all take part.
func (l *lab) equip(ctx context.Context) error {
	err := l.each(func(h *host) error {
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
	for _, w := range l.services {
		if _, err := w.settled(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// enable starts the services, now and at each boot.
func (l *lab) enable(ctx context.Context, h *host) error {
	if _, err := h.run(ctx, "systemctl", "enable", "--now", "deputy-http.service"); err != nil {
		return err
	}
	for _, w := range l.services {
		if _, err := h.run(ctx, "deputy", "enable", w.name); err != nil {
			told, _ := h.run(ctx, "journalctl", "-q", "--no-pager", "-o", "short-precise", "-u", w.unit())
			return fmt.Errorf("%w\n%s", err, told)
		}
	}
	return nil
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
	for _, w := range l.services {
		w.Aim(h.name, mac, w.at(h))
	}
	return nil
}

// close turns everything off.
func (l *lab) close() error {
	err := l.off()
	if l.client != nil {
		l.client.Close()
	}
	if l.etcd != nil {
		err = errors.Join(err, l.etcd.Close())
	}
	if l.data != "" {
		err = errors.Join(err, os.RemoveAll(l.data))
	}
	return errors.Join(err, sweepCgroups(dirPrefix()))
}

// off turns the hosts off, and ends the asking.
func (l *lab) off() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := l.each(func(h *host) error { return errors.Join(h.lose(ctx), h.wipe()) })
	if l.stop != nil {
		l.stop()
		err = errors.Join(err, l.probing.Wait(), l.probe.Close())
	}
	return err
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
	// What else is recommended would have to be fetched.
	args := []string{"apt-get", "install", "-y", "-q", "--no-install-recommends", "--allow-downgrades", "-o", "Dpkg::Use-Pty=0"}
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

// configure writes what an operator writes: the node, and its services.
func (l *lab) configure(h *host) error {
	quoted := make([]string, 0, size)
	for _, e := range l.etcd.Endpoints() {
		quoted = append(quoted, fmt.Sprintf("%q", e))
	}
	node := fmt.Sprintf("address = %q\n\n[etcd]\nendpoints = [%s]\n\n[http]\nlisten = \"%[1]s:%[3]d\"\n", h.addr, strings.Join(quoted, ", "), healthPort)
	if err := h.write("/etc/deputy/deputy.toml", node); err != nil {
		return err
	}
	for _, w := range l.services {
		if err := w.define(h, ""); err != nil {
			return err
		}
	}
	return nil
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
