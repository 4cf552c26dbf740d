package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// How the services of the lab are defined: the demo's with and without an
// address that moves, and one that is an address alone.
const (
	withAddress    = "services.d"
	withoutAddress = "services.d-loopback"
	addressAlone   = "services.d-address"
)

//go:embed services.d services.d-loopback services.d-address
var definitions embed.FS

// options are what a lab is made of. The zero value of each is what the demo
// shows.
type options struct {
	namespaces bool   // this process is in namespaces of its own
	dir        string // where everything lies; exists
	bin        string // where the binaries are
	heartbeat  time.Duration
	election   time.Duration
	ttl        time.Duration
	every      time.Duration          // between two questions of a client; zero is probeEvery
	alone      bool                   // the service is an address and nothing else
	still      bool                   // no address moves, also in namespaces
	trace      bool                   // hooks write down when they began and ended
	many       func(dir string) error // writes other definitions; nobody looks at what they do
	quick      bool                   // no time to look
	log        io.Writer              // what helpers of the lab have to say
}

// A lab is etcd, three nodes and a recorder.
type lab struct {
	options
	etcd     *etcdtest.Cluster
	nodes    []*node
	rec      *recorder
	records  *records
	port     string // of the parsers
	nodePort string // of the nodes' responders; "" without namespaces

	stop    context.CancelCauseFunc
	running *errgroup.Group
}

const size = 3

var errClosed = errors.New("the lab is closed")

// service is the name of the service that is looked at.
func (l *lab) service() string {
	if l.alone {
		return "address"
	}
	return "binlog"
}

// moves reports whether an address does.
func (l *lab) moves() bool { return l.namespaces && !l.still }

func (l *lab) vipFile() string       { return filepath.Join(l.pluginDir(), "deputy-plugin-vip") }
func (l *lab) pluginDir() string     { return filepath.Join(l.dir, "bin") }
func (l *lab) deputyFile() string    { return filepath.Join(l.dir, "bin", "deputy") }
func (l *lab) binlogFile() string    { return filepath.Join(l.dir, "bin", "binlog") }
func (l *lab) positionsFile() string { return filepath.Join(l.dir, "positions") }
func (l *lab) traceFile() string     { return filepath.Join(l.dir, "trace") }

// openLab starts etcd and the recorder, and prepares the nodes. They are off.
func openLab(ctx context.Context, o options) (_ *lab, err error) {
	l := &lab{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	// A hook or plugin may only be what nobody else can write to: a copy of our own.
	files := []string{l.deputyFile(), l.binlogFile()}
	if l.moves() {
		files = append(files, l.vipFile())
	}
	for _, file := range files {
		if err := install(filepath.Join(o.bin, filepath.Base(file)), file); err != nil {
			return nil, err
		}
	}
	listen := []string{"127.0.0.1", "127.0.0.1", "127.0.0.1"}
	if l.namespaces {
		listen = []string{etcdAddr(0), etcdAddr(1), etcdAddr(2)}
	}
	l.etcd, err = etcdtest.Start(ctx, etcdtest.Options{
		Dir: filepath.Join(l.dir, "etcd"), Listen: listen, Direct: true,
		Heartbeat: o.heartbeat, Election: o.election, Log: o.log, LogLevel: "error",
	})
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	if l.port = ports[0]; l.namespaces {
		l.nodePort = ports[1]
	}
	for i := range size {
		name := fmt.Sprintf("n%d", 1+i)
		n := &node{lab: l, index: i, name: name, addr: fmt.Sprintf("127.0.0.%d", 11+i), dir: filepath.Join(l.dir, name), run: make(chan struct{})}
		if l.namespaces {
			n.addr = nodeAddr(i)
		}
		if err := l.prepare(n); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", n.name, err)
		}
		l.nodes = append(l.nodes, n)
	}
	asking, err := l.asking()
	if err != nil {
		return nil, err
	}
	if l.rec, err = newRecorder(asking); err != nil {
		return nil, err
	}
	if l.records, err = openRecords(l.etcd.Endpoints(), l.service()); err != nil {
		return nil, err
	}
	running, stop := context.WithCancelCause(context.Background())
	l.stop = stop
	l.running, running = errgroup.WithContext(running)
	if l.many == nil {
		l.running.Go(func() error { return l.rec.run(running) })
		l.running.Go(func() error { return l.records.run(running) })
	}
	return l, nil
}

// asking says whom the recorder asks: the service as its clients do, each
// node's parser, and each node for the service's address.
func (l *lab) asking() (asking, error) {
	a := asking{every: cmp.Or(l.every, probeEvery)}
	var whom []string
	if l.moves() {
		a.service = serviceAddr
		port := l.port
		if l.alone {
			port = l.nodePort
		}
		whom = append(whom, net.JoinHostPort(serviceAddr, port))
	}
	if !l.alone {
		for _, n := range l.nodes {
			whom = append(whom, net.JoinHostPort(n.addr, l.port))
		}
	}
	for _, w := range whom {
		to, err := netip.ParseAddrPort(w)
		if err != nil {
			return asking{}, err
		}
		a.targets = append(a.targets, to)
	}
	if !l.moves() || l.many != nil {
		return a, nil
	}
	to, err := netip.ParseAddrPort(net.JoinHostPort(serviceAddr, l.nodePort))
	if err != nil {
		return asking{}, err
	}
	a.direct, err = openDoors(to)
	return a, err
}

// close ends what is still there, by force where it must, and returns when it
// is gone.
func (l *lab) close() error {
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, n.lose())
	}
	if !l.namespaces && l.nodes != nil {
		errs = append(errs, l.sweep())
	}
	if l.stop != nil {
		l.stop(errClosed)
		errs = append(errs, l.running.Wait())
	}
	if l.rec != nil {
		errs = append(errs, l.rec.close())
	}
	if l.records != nil {
		errs = append(errs, l.records.close())
	}
	if l.etcd != nil {
		errs = append(errs, l.etcd.Close())
	}
	return errors.Join(errs...)
}

// sweep ends parsers that a runner could not end because it was itself killed
// from outside.
func (l *lab) sweep() error {
	for _, n := range l.nodes {
		cmd := exec.Command(l.binlogFile(), "stop", "-state", filepath.Join(n.dir, "state", l.service()))
		var code *exec.ExitError
		if err := cmd.Run(); err != nil && !(errors.As(err, &code) && code.ExitCode() == 10) {
			return fmt.Errorf("sweep %s: %w", n.name, err)
		}
	}
	return nil
}

// off shuts all nodes down, the primary last, so that it hands over to nobody.
func (l *lab) off(ctx context.Context) error {
	primary := l.records.now().primary.Node
	var g errgroup.Group
	for _, n := range l.nodes {
		if n.name != primary {
			g.Go(func() error { return n.off(ctx) })
		}
	}
	err := g.Wait()
	for _, n := range l.nodes {
		err = errors.Join(err, n.off(ctx))
	}
	return err
}

func (l *lab) node(name string) *node {
	for _, n := range l.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// prepare writes a node's configuration and definitions.
func (l *lab) prepare(n *node) error {
	services := filepath.Join(n.dir, "services.d")
	for _, dir := range []string{services, filepath.Join(n.dir, "run"), filepath.Join(n.dir, "state")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	quoted := make([]string, 0, size)
	for _, e := range l.etcd.Endpoints() {
		quoted = append(quoted, fmt.Sprintf("%q", e))
	}
	config := fmt.Sprintf("node        = %q\naddress     = %q\nplugin_dirs = [%q]\n\n[etcd]\nendpoints = [%s]\n",
		n.name, n.addr, l.pluginDir(), strings.Join(quoted, ", "))
	if err := os.WriteFile(filepath.Join(n.dir, "deputy.toml"), []byte(config), 0o644); err != nil {
		return err
	}
	if l.many != nil {
		return l.many(services)
	}
	switch {
	case l.alone:
		return l.define(addressAlone, services)
	case l.moves():
		return l.define(withAddress, services)
	default:
		return l.define(withoutAddress, services)
	}
}

// define writes the demo's definitions, with the paths of this run.
func (l *lab) define(from, to string) error {
	hook := fmt.Sprintf("%q", l.binlogFile())
	flags := fmt.Sprintf(`, "-port", %q`, l.port)
	if l.trace {
		flags += fmt.Sprintf(`, "-trace", %q`, l.traceFile())
	}
	change := []string{
		`"/var/lib/binlog/positions"`, fmt.Sprintf("%q", l.positionsFile()),
	}
	for _, command := range []string{"start", "stop", "check", "show"} {
		change = append(change,
			fmt.Sprintf(`"/usr/local/libexec/binlog", %q`, command), fmt.Sprintf(`%s, %q%s`, hook, command, flags))
	}
	if l.ttl != 0 {
		change = append(change, `ttl         = "3s"`, fmt.Sprintf(`ttl         = %q`, l.ttl.String()))
	}
	spell := strings.NewReplacer(change...)
	return fs.WalkDir(definitions, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := definitions.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path.Base(name)), []byte(spell.Replace(string(data))), 0o644)
	})
}

// deputy runs the command line on a node, as an operator would, and returns
// what it printed.
func (l *lab) deputy(ctx context.Context, n *node, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.deputyFile(), args...)
	cmd.Env = n.env()
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("deputy %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// glance is how often what is waited for is looked at.
const glance = 5 * time.Millisecond

// await waits until ok is true.
func (l *lab) await(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// served reports whether the service has a primary that answers, in the given
// term or a later one.
func (l *lab) served(term sdk.Term) bool {
	primary := l.records.now().primary
	who, ago := l.rec.answering()
	return primary.State == sdk.RolePrimary && primary.Term >= term && ago <= 100*time.Millisecond && who.node == primary.Node &&
		(l.alone || who.term == uint64(primary.Term)) && // an address knows no term
		(l.rec.direct == nil || l.rec.isPresent(primary.Node))
}

// settled reports whether, besides, all other nodes that are on are candidates.
func (l *lab) settled(term sdk.Term) bool {
	if !l.served(term) {
		return false
	}
	s := l.records.now()
	for _, n := range l.nodes {
		c, ok := s.candidates[n.name]
		role := sdk.RoleCandidate
		if n.name == s.primary.Node {
			role = sdk.RolePrimary
		}
		if n.isOn() && (!ok || c.Role != role || !n.isUp()) {
			return false
		}
	}
	return true
}

// logs returns the end of what each deputy has logged.
func (l *lab) logs() string {
	var b strings.Builder
	for _, n := range l.nodes {
		data, err := os.ReadFile(filepath.Join(n.dir, "deputy.log"))
		if err != nil {
			continue
		}
		lines := slices.Collect(strings.Lines(string(data)))
		fmt.Fprintf(&b, "the end of the log of %s:\n%s", n.name, strings.Join(lines[max(0, len(lines)-8):], ""))
	}
	return b.String()
}

// install copies a binary.
func install(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("find the binaries: %w (make demo builds them)", err)
	}
	return os.WriteFile(to, data, 0o755)
}

// freePorts finds UDP ports that nobody listens on at this moment.
func freePorts(n int) (ports []string, err error) {
	for range n {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer c.Close() // once all are found, so that no two are the same
		_, port, err := net.SplitHostPort(c.LocalAddr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
