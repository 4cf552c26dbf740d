package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// A Config tells where the records are and who keeps them here.
type Config struct {
	Endpoints []string // URLs of etcd's members
	Prefix    string   // of all keys, like "/deputy"

	// TLS is used as it is. Without it, and with one of the files, TLS is made
	// from those; CertFile and KeyFile are read again at each connection.
	TLS      *tls.Config
	CAFile   string
	CertFile string
	KeyFile  string

	Username string
	Password string

	Compact time.Duration // discard revisions older than this; 0: etcd does it itself

	Clock   supervisor.Clock
	Node    supervisor.Node
	Witness supervisor.Witness // nil remembers nothing
	Log     *slog.Logger       // nil logs nothing
}

// A Client keeps the records of one process's elections, and is the cluster
// as an operator sees it. Operators' calls need no Run; electors do.
type Client struct {
	cfg      Config
	keys     keys
	clock    supervisor.Clock
	log      *slog.Logger
	hedge    *hedge
	past     *past
	contact  contact
	care     *care
	restarts broadcast // of all watches
	quiet    bool      // looks at the records for an operator, and no more

	turnover signal                                    // our pulses are others than before
	takes    chan struct{}                             // bounds how many takes are under way at once
	calls    chan struct{}                             // bounds how many calls are, but for pulses
	timing   func(ttl time.Duration) supervisor.Timing // supervisor.NewTiming, but in tests that break it
	present  presence

	mu        sync.Mutex
	run       context.Context // of Run, while it lasts
	queued    []func(context.Context)
	ended     bool
	wg        sync.WaitGroup
	pulses    map[time.Duration]*pulse // the one that new leases hang on, by TTL
	meters    map[time.Duration]*meter // of all pulses that there were, by TTL
	sights    map[string]*sight        // of others' pulses, by ID
	buried    map[string]struct{}      // pulses that this process deleted by compare
	elections map[string]*election     // by service
	drains    *view                    // of nodes/
	all       *feed                    // of many services; nil while there are few
}

// Open returns a Client that has not asked etcd anything yet.
func Open(cfg Config) (*Client, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoints")
	}
	conf, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	ways := make([]kv, len(cfg.Endpoints))
	for i, url := range cfg.Endpoints {
		e := &endpoint{url: url, tls: conf, username: cfg.Username, password: cfg.Password, root: newKeys(cfg.Prefix).root}
		e.prove()
		ways[i] = e
	}
	return newClient(cfg, ways), nil
}

func newClient(cfg Config, ways []kv) *Client {
	c := &Client{
		cfg:       cfg,
		keys:      newKeys(cfg.Prefix),
		clock:     cfg.Clock,
		log:       cfg.Log,
		hedge:     newHedge(ways),
		past:      newPast(ways),
		takes:     make(chan struct{}, 16),
		calls:     make(chan struct{}, 16),
		timing:    supervisor.NewTiming,
		pulses:    make(map[time.Duration]*pulse),
		meters:    make(map[time.Duration]*meter),
		sights:    make(map[string]*sight),
		buried:    make(map[string]struct{}),
		elections: make(map[string]*election),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.care = newCare(c)
	c.present.init()
	return c
}

func (cfg Config) tls() (*tls.Config, error) {
	if cfg.TLS != nil || cfg.CAFile == "" && cfg.CertFile == "" {
		return cfg.TLS, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file: %s holds no certificate", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("read cert_file and key_file: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return conf, nil
}

// Run renews, watches and compacts until ctx ends. Leases should be resigned
// or abandoned by then; what is left of them is abandoned. It returns when
// everything it started has ended.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	if c.run != nil || c.ended {
		c.mu.Unlock()
		return errors.New("run etcd client: it runs or ran already")
	}
	c.run = ctx
	for _, f := range c.queued {
		c.wg.Go(func() { f(ctx) })
	}
	c.queued = nil
	c.mu.Unlock()
	c.spawn(c.keepPresent)
	if !c.quiet {
		c.spawn(c.care.run)
	}
	if c.cfg.Compact > 0 {
		c.spawn(c.compacting)
	}

	<-ctx.Done()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()

	last, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), 2*time.Second, errors.New("end of the process"))
	defer stop()
	c.leave(last)
	return nil
}

// spawn runs f in Run, as soon as that runs. Run waits for it.
func (c *Client) spawn(f func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spawnLocked(f)
}

func (c *Client) spawnLocked(f func(context.Context)) {
	switch {
	case c.ended:
	case c.run == nil:
		c.queued = append(c.queued, f)
	default:
		ctx := c.run
		c.wg.Go(func() { f(ctx) })
	}
}

// Close ends the connections, after Run has returned.
func (c *Client) Close() error { return c.hedge.close() }

// txn carries out t, which must be safe to repeat, by asking until there is an
// answer or ctx ends. The error wraps supervisor.ErrUnreachable when nothing is
// known of the outcome.
//
// Pulses do not go this way: what many services do at once must not keep the
// leases of all from being renewed.
func (c *Client) txn(ctx context.Context, t txn) (reply, error) {
	select {
	case c.calls <- struct{}{}:
		defer func() { <-c.calls }()
	case <-ctx.Done():
		return reply{}, &unreachable{cause: context.Cause(ctx)}
	}
	return c.txnHedged(ctx, hedgeDelay, t)
}

func (c *Client) txnHedged(ctx context.Context, delay time.Duration, t txn) (reply, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
		defer cancel()
	}
	floor := c.past.highest()
	r, err := ask(ctx, c.hedge, delay, func(ctx context.Context, way kv) (reply, error) {
		r, err := way.Txn(ctx, t)
		if err == nil {
			err = c.past.admit(way.Name(), r.Cluster)
		}
		return r, err
	})
	if err != nil {
		c.contact.fails(err)
		return reply{}, err
	}
	c.contact.answers()
	if r.OK && slices.ContainsFunc(t.Then, func(o op) bool { return o.kind != opGet }) {
		c.contact.obeys()
	}
	if c.past.saw(r, floor) {
		c.replaced()
	}
	return r, nil
}

// replaced begins anew with what etcd has now.
func (c *Client) replaced() {
	id, rev, _ := c.past.now()
	c.log.Error(saidReplace, "cluster", clusterName(id), "revision", rev)
	c.restarts.wake()
}

// read gets spans at one revision, linearizably.
func (c *Client) read(ctx context.Context, spans ...span) (reply, error) {
	t := txn{}
	for _, s := range spans {
		t.Then = append(t.Then, get(s))
	}
	return c.txn(ctx, t)
}

// watch receives changes from the endpoint that answered last. It is a hint,
// and may stall without an error.
func (c *Client) watch(ctx context.Context, s span, from int64) (kv, <-chan batch) {
	way := c.hedge.best()
	return way, way.Watch(ctx, s, from)
}
