package etcd

import (
	"context"
	"errors"
	"time"
)

// A kv is one way to the records: one member of etcd, or a store in memory.
//
// A call that returns an error may have been carried out, may be carried out
// later, and even more than once: the outcome is unknown. Every call ends soon
// after its ctx does.
type kv interface {
	// Name is the endpoint, for messages.
	Name() string
	// Txn carries out Then or Else at once, depending on If. It is
	// linearizable, also when it only reads.
	Txn(ctx context.Context, t txn) (reply, error)
	// Watch receives the changes of keys in r from revision from on, in
	// order; first a batch without any, when it has begun. It may stall
	// without an error, also before that; it ends with ctx, or after a batch
	// that has one. It never blocks the caller.
	Watch(ctx context.Context, r span, from int64) <-chan batch
	// Grant creates an etcd lease, which serves presence only.
	Grant(ctx context.Context, ttl time.Duration) (lease int64, err error)
	// KeepAlive renews an etcd lease; errLeaseGone when there is none.
	KeepAlive(ctx context.Context, lease int64) error
	// Revoke deletes an etcd lease and the keys that hang on it.
	Revoke(ctx context.Context, lease int64) error
	// Compact discards what was overwritten before rev.
	Compact(ctx context.Context, rev int64) error
	// Health tells how the member is doing.
	Health(ctx context.Context) (health, error)
	Close() error
}

var (
	// errCompacted ends a watch that wants revisions which are gone.
	errCompacted = errors.New("the revision has been compacted")
	// errLeaseGone means that an etcd lease does not exist (any more).
	errLeaseGone = errors.New("the etcd lease is gone")
)

// A span is a range of keys from key up to, not including, end; the one key
// when end is empty.
type span struct{ key, end string }

func one(key string) span { return span{key: key} }

// under is the span of all keys that begin with prefix, which ends in "/".
func under(prefix string) span {
	return span{key: prefix, end: prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)}
}

func (s span) has(key string) bool {
	if s.end == "" {
		return key == s.key
	}
	return s.key <= key && key < s.end
}

// A cond is one condition of a transaction.
type cond struct {
	key    string
	end    string // not empty: all keys from key up to end, see span
	create bool   // compare the create revision, not the one of the last change
	rev    int64  // 0: the key does not exist
}

// is is the condition that key was last changed at rev; absent when rev is 0.
func is(key string, rev int64) cond { return cond{key: key, create: rev == 0, rev: rev} }

// born is the condition that key exists since the creation at rev.
func born(key string, rev int64) cond { return cond{key: key, create: true, rev: rev} }

// none is the condition that no key in s exists.
func none(s span) cond { return cond{key: s.key, end: s.end, create: true} }

// An op is one step of a transaction: a get, a put or a delete.
type op struct {
	kind     opKind
	span     span   // of a put: one key
	value    []byte // of a put
	lease    int64  // of a put: the etcd lease it hangs on; 0 is none
	keysOnly bool   // of a get
	limit    int64  // of a get: so many records at most; 0: all
}

type opKind int

const (
	opGet opKind = iota
	opPut
	opDelete
)

func get(s span) op                   { return op{kind: opGet, span: s} }
func getKeys(s span) op               { return op{kind: opGet, span: s, keysOnly: true} }
func getFirstKey(s span) op           { return op{kind: opGet, span: s, keysOnly: true, limit: 1} }
func put(key string, value []byte) op { return op{kind: opPut, span: one(key), value: value} }
func remove(s span) op                { return op{kind: opDelete, span: s} }
func putLeased(k string, v []byte, l int64) op {
	return op{kind: opPut, span: one(k), value: v, lease: l}
}

// maxOps is how many conditions and steps a transaction may have: etcd's
// default of --max-txn-ops.
const maxOps = 128

// A txn is one transaction.
type txn struct {
	If   []cond
	Then []op
	Else []op
}

// A reply is the answer to a transaction.
type reply struct {
	OK      bool // Then was carried out
	Rev     int64
	Cluster uint64     // id of the etcd cluster
	Results [][]record // one for each op; empty but for gets
}

// first returns the one key that the i-th step read; the zero record when it
// does not exist.
func (r reply) first(i int) record {
	if i >= len(r.Results) || len(r.Results[i]) == 0 {
		return record{}
	}
	return r.Results[i][0]
}

// A record is a key with its value. The zero record does not exist.
type record struct {
	Key    string
	Value  []byte
	Create int64 // revision of its creation
	Mod    int64 // revision of its last change; 0: it does not exist
	Lease  int64 // etcd lease it hangs on
}

func (r record) exists() bool { return r.Mod != 0 }

// A batch is what a watch receives at once.
type batch struct {
	Events []event
	Err    error // the watch has ended; errCompacted among others
}

// An event is the change of one key.
type event struct {
	record  // Mod is the revision of the change, also of a deletion
	Deleted bool
	Prev    record // before the change, where known
}
