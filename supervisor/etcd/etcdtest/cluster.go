package etcdtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options describe a cluster. The zero Options are one with three members,
// etcd's own defaults, and data in a temporary directory.
type Options struct {
	Members   int
	Heartbeat time.Duration // 0: 100ms, etcd's default
	Election  time.Duration // 0: 1s, etcd's default
	Dir       string        // keeps data, one folder a member; "" for a temporary one
	Listen    []string      // an IP per member; 127.0.0.1 where there is none
	TLS       *TLS          // for clients; members talk plainly to each other
	Log       io.Writer     // etcd's warnings; nil for none
	LogLevel  string        // "" for "warn"
	NoFsync   bool          // data does not outlive the machine; for tests only
	Quota     int64         // bytes; 0: etcd's default of 2 GiB
	Auth      string        // kind of tokens, as etcd's auth-token; "" for simple, etcd's default
	AuthTTL   time.Duration // of simple tokens, in whole seconds; 0: etcd's default of 5 minutes
	Compact   string        // "periodic=5m" or "revision=1000"; "" for none, etcd's default
	// Direct puts no proxies in front of the members: nothing can be cut, and
	// no byte goes through this process.
	Direct bool
}

// TLS tells how the members prove themselves to clients. All are files.
type TLS struct {
	CA, Cert, Key string
	Mutual        bool // clients prove themselves too; their common name is their user
	// ClientCert and ClientKey are what this process shows as a client, to
	// take a snapshot. The members' own when empty.
	ClientCert, ClientKey string
}

// A Cluster is a running etcd cluster.
type Cluster struct {
	opts    Options
	dir     string
	token   string
	members []*Member
	gates   *gates

	mu      sync.Mutex
	changed chan struct{} // closed and renewed when a member reports
	paths   []*Path
}

// errClash means that somebody else took a port between finding and using it.
// It is tried again so many times with others.
var errClash = errors.New("address already in use")

const tries = 5

// Start starts a cluster and returns when each member serves clients.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if _, ok := os.LookupEnv(memberEnv); ok {
		return nil, errors.New("start etcd: this process is a member, and never called etcdtest.Main")
	}
	opts.Members = cmp.Or(opts.Members, 3)
	opts.Heartbeat = cmp.Or(opts.Heartbeat, 100*time.Millisecond)
	opts.Election = cmp.Or(opts.Election, time.Second)
	opts.LogLevel = cmp.Or(opts.LogLevel, "warn")
	var err error
	for range tries {
		var c *Cluster
		if c, err = start(ctx, opts); err == nil {
			return c, nil
		}
		if !errors.Is(err, errClash) {
			break
		}
	}
	return nil, fmt.Errorf("start etcd: %w", err)
}

func start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	c := &Cluster{
		opts:    opts,
		dir:     opts.Dir,
		token:   "etcdtest-" + rand.Text(),
		gates:   newGates(),
		changed: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "etcdtest-"); err != nil {
			return nil, err
		}
	}
	for i := range opts.Members {
		m, err := newMember(c, i)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.members = append(c.members, m)
		c.mu.Unlock()
	}
	return c, c.startAll(ctx)
}

// startAll starts all members at once, since none serves before most of them
// run, and waits for them. One that ends meanwhile fails all.
func (c *Cluster) startAll(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serving := make(chan struct{})
	var runs []*run
	for _, m := range c.members {
		r, err := m.start()
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	for i, r := range runs {
		g.Go(func() error {
			select {
			case <-r.ended:
				return r.failure(c.members[i].name)
			case <-serving:
				return nil
			}
		})
	}
	g.Go(func() error {
		defer close(serving)
		for i, r := range runs {
			if err := c.members[i].await(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// Close kills all members and removes what Start has made. It may be called
// again.
func (c *Cluster) Close() error {
	c.mu.Lock()
	paths := c.paths
	c.mu.Unlock()
	for _, p := range paths {
		p.close()
	}
	for _, m := range c.members {
		m.Kill()
		for _, p := range m.proxies() {
			p.close()
		}
	}
	if c.opts.Dir == "" && c.dir != "" {
		return os.RemoveAll(c.dir)
	}
	return nil
}

// Size is the number of members.
func (c *Cluster) Size() int { return len(c.members) }

// Member returns the i-th member, from 0.
func (c *Cluster) Member(i int) *Member { return c.members[i] }

// Endpoints are the members' client URLs, in order. They stay the same for the
// life of the cluster.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.Endpoint())
	}
	return all
}

// Leader waits until a member that runs, and is not cut off from the others,
// leads, and returns it; -1 when ctx ends before that.
func (c *Cluster) Leader(ctx context.Context) int {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if i := c.leader(); i >= 0 {
			return i
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return -1
		}
	}
}

// leader returns the member that leads in the highest term that any of them
// has reported.
func (c *Cluster) leader() int {
	leader, term := -1, uint64(0)
	for i, m := range c.members {
		if c.cut(i) {
			continue
		}
		r, running := m.reported()
		switch {
		case !running || r.Term < term:
		case r.Leader == r.Self && r.Self != 0:
			leader, term = i, r.Term
		case r.Term > term:
			leader, term = -1, r.Term
		}
	}
	return leader
}

// notify tells those who wait that a member has changed.
func (c *Cluster) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Cut holds back all traffic between member i and the other members. Clients
// still reach it.
func (c *Cluster) Cut(i int) { c.peers(i, true) }

// CutOneWay holds back what one member sends to another.
func (c *Cluster) CutOneWay(from, to int) {
	c.mustProxy()
	c.gates.set(true, link{from, to})
}

// CutClients holds back all traffic between member i and its clients.
func (c *Cluster) CutClients(i int) {
	c.mustProxy()
	c.gates.set(true, link{clients, i}, link{i, clients})
}

// Heal lets everything to and from member i through again.
func (c *Cluster) Heal(i int) {
	c.peers(i, false)
	c.gates.set(false, link{clients, i}, link{i, clients})
}

func (c *Cluster) peers(i int, shut bool) {
	c.mustProxy()
	for j := range c.members {
		if j != i {
			c.gates.set(shut, link{i, j}, link{j, i})
		}
	}
	c.notify()
}

// cut reports whether member i is cut off from all others.
func (c *Cluster) cut(i int) bool {
	for j := range c.members {
		if j != i && !c.gates.isShut(link{i, j}) {
			return false
		}
	}
	return len(c.members) > 1
}

func (c *Cluster) mustProxy() {
	if c.opts.Direct {
		panic("etcdtest: a Direct cluster cannot be cut")
	}
}

// pids are the processes of the members; 0 for one that does not run. It may
// be called while the cluster is made: anybody can connect.
func (c *Cluster) pids() []int {
	c.mu.Lock()
	members := slices.Clone(c.members)
	c.mu.Unlock()
	pids := make([]int, len(members))
	for i, m := range members {
		pids[i] = m.Pid()
	}
	return pids
}

// initial spells the cluster's peers as etcd's initial-cluster does.
func (c *Cluster) initial() string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.name+"="+m.peerURL())
	}
	return strings.Join(all, ",")
}

func (c *Cluster) ip(i int) string {
	if i < len(c.opts.Listen) && c.opts.Listen[i] != "" {
		return c.opts.Listen[i]
	}
	return "127.0.0.1"
}

func (c *Cluster) scheme() string {
	if c.opts.TLS != nil {
		return "https://"
	}
	return "http://"
}

func (c *Cluster) dataDir(i int) string {
	return filepath.Join(c.dir, fmt.Sprintf("m%d", i))
}

// freeAddr finds an address that nobody listens on at this moment.
func freeAddr(ip string) (string, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
