package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A door is open until an instant, as a rule with a timeout in the kernel is.
type door struct {
	host  sdk.Host
	until sdk.Instant
}

// Renew extends what ends by itself. What has ended stays so.
func (d *door) Renew(_ context.Context, until sdk.Instant) error {
	if d.host.Now() >= d.until {
		return fmt.Errorf("the door is closed: %w", sdk.ErrExpired)
	}
	d.until = until
	return nil
}

func ExampleRenewer() {
	d := &door{until: sdk.Now().Add(time.Minute)}
	fmt.Println(d.Renew(context.Background(), sdk.Now().Add(-time.Second)))
	err := d.Renew(context.Background(), sdk.Now().Add(time.Minute))
	fmt.Println(err, errors.Is(err, sdk.ErrExpired))
	// Output:
	// <nil>
	// the door is closed: expired true
}

// A replica's position is the number of its last transaction.
type replica struct {
	last    int
	follows string
}

func (r *replica) Check(_ context.Context, role sdk.Role) (sdk.Health, error) {
	h := sdk.Health{Fit: true, Detail: "replicates", Position: strconv.Itoa(r.last)}
	if role == sdk.RoleCandidate && r.last == 0 {
		h.Fit, h.Detail = false, "has no data yet"
	}
	return h, nil
}

// Rank compares what Check has told, here and on the other nodes.
func (r *replica) Rank(_ context.Context, mine string, others map[string]string) (map[string]sdk.Order, error) {
	own, err := strconv.Atoi(mine)
	if err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	orders := map[string]sdk.Order{}
	for node, position := range others {
		switch other, err := strconv.Atoi(position); {
		case err != nil: // left out, so incomparable
		case own > other:
			orders[node] = sdk.Ahead
		case own < other:
			orders[node] = sdk.Behind
		default:
			orders[node] = sdk.Equal
		}
	}
	return orders, nil
}

func ExampleRanker() {
	r := &replica{last: 42}
	h, _ := r.Check(context.Background(), sdk.RoleCandidate)
	orders, err := r.Rank(context.Background(), h.Position, map[string]string{"db2": "41", "db3": "43", "db4": "?"})
	fmt.Println(orders, err)
	// Output: map[db2:ahead db3:behind] <nil>
}

func ExampleChecker() {
	h, err := (&replica{}).Check(context.Background(), sdk.RoleCandidate)
	fmt.Println(h.Fit, h.Detail, err)
	// Output: false has no data yet <nil>
}

// Follow points the part to the primary, and says so when it does already.
func (r *replica) Follow(_ context.Context, t *sdk.Transition) error {
	if r.follows == t.Primary.Address {
		return sdk.ErrAlready
	}
	r.follows = t.Primary.Address
	return nil
}

func ExampleFollower() {
	r := &replica{}
	to := &sdk.Transition{Action: sdk.Follow, Primary: sdk.Peer{Node: "db2", Address: "192.0.2.2"}}
	fmt.Println(r.Follow(context.Background(), to), r.follows)
	fmt.Println(r.Follow(context.Background(), to))
	// Output:
	// <nil> 192.0.2.2
	// already so
}

// A switchboard knows which nodes have power.
type switchboard map[string]bool

// Fence asks after the deed: that the command was sent proves nothing.
func (s switchboard) Fence(_ context.Context, victim sdk.Peer, _ *sdk.Transition) error {
	on, known := s[victim.Node]
	switch {
	case !known:
		return sdk.Refuse(fmt.Errorf("%s has no outlet here", victim.Node)) // nothing was done, nor can be
	case !on:
		return sdk.ErrAlready
	}
	s[victim.Node] = false
	if s[victim.Node] {
		return errors.New("it has power still") // this node must not promote
	}
	return nil
}

func ExampleFencer() {
	s := switchboard{"db2": true}
	for _, victim := range []string{"db2", "db2", "db9"} {
		fmt.Println(s.Fence(context.Background(), sdk.Peer{Node: victim}, &sdk.Transition{}))
	}
	// Output:
	// <nil>
	// already so
	// db9 has no outlet here
}

func ExampleProgress() {
	apply := func(ctx context.Context, left int) error {
		for all := left; left > 0; left-- {
			if ctx.Err() != nil {
				return context.Cause(ctx) // why it is told to end: time, a demotion, the end of the process
			}
			sdk.Progress(ctx, 100*float64(all-left)/float64(all), "%d transactions to apply", left)
		}
		return nil
	}
	fmt.Println(apply(context.Background(), 3)) // in no act it says nothing, and does no harm
	// Output: <nil>
}

func ExampleNote() {
	promote := func(ctx context.Context, _ *sdk.Transition) error {
		sdk.Note(ctx, "read_only is off, %d replicas connected", 2) // the outcome then reads "done: read_only is off, ..."
		return nil
	}
	fmt.Println(promote(context.Background(), nil))
	// Output: <nil>
}

// What an act's error promises. When in doubt return the plain one.
func ExampleUnchanged() {
	look := errors.New("socket refuses connections")
	for _, err := range []error{
		look,                                // failed-unknown: it may be primary
		sdk.Unchanged(look),                 // failed-unchanged: it is what it was, by looking; try again
		sdk.Retry(look, 5*time.Second),      // the same, and not before 5 s have passed
		sdk.Refuse(look),                    // the same, and again is of no use
		sdk.Stale(errors.New("term 9 was")), // stale-term: the database has seen a newer one
		sdk.Unchanged(nil),                  // no error at all
	} {
		fmt.Println(err)
	}
	// Output:
	// socket refuses connections
	// socket refuses connections
	// socket refuses connections
	// socket refuses connections
	// term 9 was
	// <nil>
}

func ExampleRetry() {
	err := sdk.Retry(errors.New("apply lag is 12 s"), 5*time.Second)
	fmt.Println(fmt.Errorf("promote: %w", err)) // may be wrapped
	// Output: promote: apply lag is 12 s
}

// A name server, or a fenced file, that keeps the highest term can refuse for good.
func ExampleStale() {
	kept := sdk.Term(9)
	promote := func(t *sdk.Transition) error {
		if t.Term < kept {
			return sdk.Stale(fmt.Errorf("term %d is on record", kept))
		}
		kept = t.Term
		return nil
	}
	fmt.Println(promote(&sdk.Transition{Term: 8}))
	fmt.Println(promote(&sdk.Transition{Term: 10}))
	// Output:
	// term 9 is on record
	// <nil>
}

func ExampleRun() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	log := slog.New(slog.DiscardHandler) // a plugin's is Host.Log
	fmt.Println(sdk.Run(sdk.Command(ctx, "/bin/sh", "-c", "echo no such unit >&2; exit 4"), log))
	// Output: run /bin/sh: exit status 4: no such unit
}

// A window is settings that the tags alone cannot judge.
type window struct {
	Least int `toml:"least" doc:"the least that is right" default:"0"`
	Most  int `toml:"most" doc:"the most that is right" default:"10"`
}

// Validate is asked once each value is right by itself.
func (w *window) Validate() error {
	if w.Least > w.Most {
		return &sdk.KeyError{Key: "least", Err: fmt.Errorf("is %d, must not be above most", w.Least)}
	}
	return nil
}

func ExampleKeyError() {
	fmt.Println((&window{Least: 11, Most: 10}).Validate())
	// Output: least: is 11, must not be above most
}

// What has to outlast the process is kept in the state directory. A write that is
// cut short leaves what was there before.
func ExampleHost() {
	keep := func(h sdk.Host, last sdk.Peer) error {
		text, err := json.Marshal(last)
		if err != nil {
			return err
		}
		file := filepath.Join(h.StateDir, "last.json")
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}
	kept := func(h sdk.Host) (last sdk.Peer, err error) {
		text, err := os.ReadFile(filepath.Join(h.StateDir, "last.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return last, nil // the first time
		}
		return last, errors.Join(err, json.Unmarshal(text, &last))
	}

	dir, err := os.MkdirTemp("", "state-") // a supervisor makes it, before New's function is called
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	h := sdk.Host{StateDir: dir}
	fmt.Println(kept(h))
	fmt.Println(keep(h, sdk.Peer{Node: "db2", Address: "192.0.2.2"}))
	fmt.Println(kept(h))
	// Output:
	// { } <nil>
	// <nil>
	// {db2 192.0.2.2} <nil>
}
