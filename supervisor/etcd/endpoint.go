package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// An endpoint is one member of etcd behind a client of its own, so that a
// member that hangs is left by asking another, not by waiting for gRPC.
type endpoint struct {
	url      string
	tls      *tls.Config
	username string
	password string
	root     string // of the keys, for messages

	mu     sync.Mutex
	dial   *dial             // nil until first used, and after a failure
	proof  *x509.Certificate // that the member has shown last
	closed bool
	wg     sync.WaitGroup
}

// A dial is the making of a client, which asks for a token when there is a
// password, and so takes time.
type dial struct {
	done   chan struct{}
	client *clientv3.Client
	err    error
}

var _ kv = (*endpoint)(nil)

func (e *endpoint) Name() string { return e.url }

func (e *endpoint) client(ctx context.Context) (*clientv3.Client, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, errClosed
	}
	d := e.dial
	if d == nil {
		d = &dial{done: make(chan struct{})}
		e.dial = d
		e.wg.Go(func() {
			defer close(d.done)
			d.client, d.err = e.open()
			if d.err != nil {
				e.mu.Lock()
				e.dial = nil
				e.mu.Unlock()
			}
		})
	}
	e.mu.Unlock()
	select {
	case <-d.done:
		return d.client, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *endpoint) open() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{e.url},
		TLS:       e.tls,
		Username:  e.username,
		Password:  e.password,
		// Bounds nothing but the asking for a token.
		DialTimeout: 2 * time.Second,
		// These find a dead connection long after the deadlines of the calls
		// have; gRPC allows no less than 10 s. Without a call under way etcd
		// takes pings for an attack and ends the connection.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: time.Second,
		// One retry, for a token that has expired.
		MaxUnaryRetries: 2,
		Logger:          zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{
					BaseDelay:  50 * time.Millisecond,
					Multiplier: 1.6,
					Jitter:     0.2,
					MaxDelay:   time.Second,
				},
				MinConnectTimeout: 2 * time.Second,
			}),
			// The client would wait for a connection until the deadline; a
			// refused one is to be known at once.
			grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any,
				cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
			) error {
				return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
			}),
		},
	})
}

func (e *endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	d := e.dial
	e.mu.Unlock()
	defer e.wg.Wait()
	if d == nil {
		return nil
	}
	<-d.done
	if d.client == nil {
		return nil
	}
	if err := d.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close %s: %w", e.url, err)
	}
	return nil
}

func (e *endpoint) Txn(ctx context.Context, t txn) (reply, error) {
	c, err := e.client(ctx)
	if err != nil {
		return reply{}, e.explain(err)
	}
	ifs := make([]clientv3.Cmp, len(t.If))
	for i, f := range t.If {
		if f.create {
			ifs[i] = clientv3.Compare(clientv3.CreateRevision(f.key), "=", f.rev)
		} else {
			ifs[i] = clientv3.Compare(clientv3.ModRevision(f.key), "=", f.rev)
		}
		if f.end != "" {
			ifs[i] = ifs[i].WithRange(f.end)
		}
	}
	r, err := c.Txn(ctx).If(ifs...).Then(ops(t.Then)...).Else(ops(t.Else)...).Commit()
	if err != nil {
		return reply{}, e.explain(err)
	}
	answer := reply{
		OK:      r.Succeeded,
		Rev:     r.Header.Revision,
		Cluster: r.Header.ClusterId,
		Results: make([][]record, len(r.Responses)),
	}
	for i, res := range r.Responses {
		if rng := res.GetResponseRange(); rng != nil {
			for _, pair := range rng.Kvs {
				answer.Results[i] = append(answer.Results[i], recordOf(pair))
			}
		}
	}
	return answer, nil
}

func ops(list []op) []clientv3.Op {
	out := make([]clientv3.Op, len(list))
	for i, o := range list {
		var opts []clientv3.OpOption
		if o.span.end != "" {
			opts = append(opts, clientv3.WithRange(o.span.end))
		}
		switch o.kind {
		case opGet:
			if o.keysOnly {
				opts = append(opts, clientv3.WithKeysOnly())
			}
			if o.limit != 0 {
				opts = append(opts, clientv3.WithLimit(o.limit))
			}
			out[i] = clientv3.OpGet(o.span.key, opts...)
		case opPut:
			if o.lease != 0 {
				opts = append(opts, clientv3.WithLease(clientv3.LeaseID(o.lease)))
			}
			out[i] = clientv3.OpPut(o.span.key, string(o.value), opts...)
		case opDelete:
			out[i] = clientv3.OpDelete(o.span.key, opts...)
		}
	}
	return out
}

func recordOf(p *mvccpb.KeyValue) record {
	if p == nil {
		return record{}
	}
	return record{Key: string(p.Key), Value: p.Value, Create: p.CreateRevision, Mod: p.ModRevision, Lease: p.Lease}
}

func (e *endpoint) Watch(ctx context.Context, r span, from int64) <-chan batch {
	out := make(chan batch, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(out)
		return out
	}
	e.wg.Go(func() {
		defer close(out)
		e.feed(ctx, r, from, out)
	})
	return out
}

// feed is a watch from its beginning, which can take as long as the member
// hangs, to its end.
func (e *endpoint) feed(ctx context.Context, r span, from int64, out chan<- batch) {
	c, err := e.client(ctx)
	if err != nil {
		out <- batch{Err: e.explain(err)}
		return
	}
	opts := []clientv3.OpOption{clientv3.WithRev(from), clientv3.WithPrevKV(), clientv3.WithCreatedNotify()}
	if r.end != "" {
		opts = append(opts, clientv3.WithRange(r.end))
	}
	// A member that is cut off from the others ends its watches.
	for w := range c.Watch(clientv3.WithRequireLeader(ctx), r.key, opts...) {
		b := batch{Events: make([]event, 0, len(w.Events))}
		for _, ev := range w.Events {
			b.Events = append(b.Events, event{
				record:  recordOf(ev.Kv),
				Deleted: ev.Type == clientv3.EventTypeDelete,
				Prev:    recordOf(ev.PrevKv),
			})
		}
		if err := w.Err(); err != nil {
			b.Err = e.explain(err)
		}
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
		if b.Err != nil {
			return
		}
	}
}

func (e *endpoint) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	c, err := e.client(ctx)
	if err != nil {
		return 0, e.explain(err)
	}
	r, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, e.explain(err)
	}
	return int64(r.ID), nil
}

func (e *endpoint) KeepAlive(ctx context.Context, lease int64) error {
	c, err := e.client(ctx)
	if err != nil {
		return e.explain(err)
	}
	_, err = c.KeepAliveOnce(ctx, clientv3.LeaseID(lease))
	return e.explain(err)
}

func (e *endpoint) Revoke(ctx context.Context, lease int64) error {
	c, err := e.client(ctx)
	if err != nil {
		return e.explain(err)
	}
	_, err = c.Revoke(ctx, clientv3.LeaseID(lease))
	return e.explain(err)
}

func (e *endpoint) Compact(ctx context.Context, rev int64) error {
	c, err := e.client(ctx)
	if err != nil {
		return e.explain(err)
	}
	_, err = c.Compact(ctx, rev)
	return e.explain(err)
}
