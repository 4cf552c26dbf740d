package kernelguard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"github.com/deputy-ha/deputy/sdk"
)

// A Guard is the guard of one part of one service on this host, whichever
// process speaks to it. Its methods may be called at the same time.
type Guard struct {
	name   string // of its tables
	tables []table
	digest string
	now    func() sdk.Instant

	mu    sync.Mutex
	conn  conn
	known bool // those tables are installed, as far as is known
}

// A State is what the kernel has of a guard.
type State struct {
	Installed bool          // its tables are there
	Current   bool          // and are those that this Guard installs
	Left      time.Duration // it is open for so long; zero: closed
	Addresses []netip.Addr  // what the tables guard that are there
}

// ForAddresses returns the guard of addresses. It changes nothing.
func ForAddresses(service, part string, addrs []netip.Addr) (*Guard, error) {
	return newGuard(service, part, addressTables(addrs))
}

// ForPorts returns the guard of ports. It changes nothing.
func ForPorts(service, part string, p Ports) (*Guard, error) {
	return newGuard(service, part, portTables(p))
}

func newGuard(service, part string, tables []table) (*Guard, error) {
	digest, err := digestOf(tables)
	if err != nil {
		return nil, err
	}
	g := &Guard{name: Name(service, part), tables: tables, digest: digest, now: sdk.Now}
	if len(g.name) >= 256 { // NFT_NAME_MAXLEN
		return nil, fmt.Errorf("name nftables table: %q is too long", g.name)
	}
	return g, nil
}

// Name is the name of the tables that guard a part. Names of services and
// parts have no slash, so no two are alike.
func Name(service, part string) string { return "deputy/" + service + "/" + part }

// String names the guard as nft does.
func (g *Guard) String() string { return "table inet " + g.name }

// The bounds of what lies between reading the clock and the kernel's having
// heard of it.
const (
	margin   = 5 * time.Millisecond // that the guard closes early, to cover it
	attempts = 4                    // each with four times the margin of the one before
)

// Arm opens the guard until an instant, installing it if need be. An error
// tells that it is closed, or that it could not be reached.
func (g *Guard) Arm(until sdk.Instant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.look()
	if err == nil {
		err = g.open(until, g.renewFresh)
	}
	if g.known && errors.Is(err, os.ErrNotExist) { // somebody has removed it since
		g.known = false
		err = g.open(until, g.renewFresh)
	}
	if err != nil {
		return fmt.Errorf("open guard: %w", err)
	}
	g.known = true
	return nil
}

// Renew keeps an open guard open until an instant. It never opens one that has
// closed: ErrExpired. ErrGone tells that there is no guard any more.
func (g *Guard) Renew(until sdk.Instant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.open(until, g.renewLiving)
	if errors.Is(err, os.ErrNotExist) {
		s, looked := g.state()
		switch {
		case looked != nil:
			err = looked
		case !s.Installed:
			err = ErrGone
		default:
			err = ErrExpired
		}
	}
	if err != nil {
		return fmt.Errorf("renew guard: %w", err)
	}
	return nil
}

// open extends the guard until an instant and proves that it ends no later. What
// the kernel has not answered in time may have been done nonetheless, and late.
func (g *Guard) open(until sdk.Instant, extend func(*nftables.Conn, time.Duration) error) error {
	early := margin
	var late error // of an attempt that may have opened it for too long
	for range attempts {
		before := g.now()
		left := until.Sub(before).Truncate(time.Millisecond)
		if left <= 0 {
			return errors.Join(ErrExpired, late, g.close(0))
		}
		left = max(left-early, time.Millisecond).Truncate(time.Millisecond)
		err := g.flush(func(c *nftables.Conn) error { return extend(c, left) })
		// It ends left after some moment before now.
		end := g.now().Add(left)
		switch {
		case err == nil && end <= until:
			return nil
		case err == nil:
			late = errors.New("this process is too slow to keep an instant: stopped, or starved of CPU")
		case unanswered(err):
			late = err
		case late == nil || errors.Is(err, os.ErrNotExist): // nothing is open for too long
			return err
		default:
			return errors.Join(err, g.close(0))
		}
		extend, early = g.renewLiving, 4*early
	}
	return errors.Join(late, g.close(0))
}

// renewFresh replaces what was there, open or closed.
func (g *Guard) renewFresh(c *nftables.Conn, left time.Duration) error {
	if !g.known {
		if err := g.build(c); err != nil {
			return err
		}
	}
	for _, t := range g.tables {
		live := t.timed(g.name, liveSet)
		c.FlushSet(live)
		c.FlushSet(t.timed(g.name, partingSet))
		if err := c.SetAddElements(live, t.elements(left)); err != nil {
			return err
		}
	}
	return nil
}

// renewLiving fails as a whole unless all that it replaces still lives.
func (g *Guard) renewLiving(c *nftables.Conn, left time.Duration) error {
	for _, t := range g.tables {
		live := t.timed(g.name, liveSet)
		if err := c.SetDeleteElements(live, t.elements(0)); err != nil {
			return err
		}
		if err := c.SetAddElements(live, t.elements(left)); err != nil {
			return err
		}
	}
	return nil
}

// Disarm closes the guard that is installed, at once, or installs this one if
// none is. TCP resets may still leave for the parting time, so that those can be
// told who are connected.
func (g *Guard) Disarm(parting time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.close(parting); err != nil {
		return fmt.Errorf("close guard: %w", err)
	}
	return nil
}

// Install sees to it that this guard is the one that is installed. It is closed
// if it was not.
func (g *Guard) Install() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.look()
	if err == nil && !g.known {
		err = g.flush(g.build)
		g.known = err == nil
	}
	if err != nil {
		return fmt.Errorf("install guard: %w", err)
	}
	return nil
}

func (g *Guard) close(parting time.Duration) error {
	err := g.flush(func(c *nftables.Conn) error {
		for _, t := range g.tables {
			c.FlushSet(t.timed(g.name, liveSet))
			c.FlushSet(t.timed(g.name, partingSet))
			if parting = parting.Truncate(time.Millisecond); parting > 0 {
				if err := c.SetAddElements(t.timed(g.name, partingSet), t.elements(parting)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) { // not installed, or not any more
		err = g.flush(g.build)
		g.known = err == nil
	}
	return err
}

// Remove removes the guard's tables: nothing is guarded any more.
func (g *Guard) Remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = false
	err := g.flush(func(c *nftables.Conn) error {
		for _, t := range g.tables {
			t.remove(c, g.name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove guard: %w", err)
	}
	return nil
}

// State looks at what the kernel has.
func (g *Guard) State() (State, error) {
	g.mu.Lock() // a renewal in the middle would look like a closed guard
	defer g.mu.Unlock()
	return g.state()
}

func (g *Guard) state() (State, error) {
	var s State
	err := g.conn.do(func(c *nftables.Conn) error {
		s = State{Installed: true, Current: true}
		for i, t := range g.tables {
			digest, err := t.installed(c, g.name)
			if err != nil {
				return err
			}
			s.Installed = s.Installed && digest != ""
			s.Current = s.Current && digest == g.digest
			if digest == "" {
				continue
			}
			left, err := t.left(c, g.name)
			if err != nil {
				return err
			}
			if i == 0 {
				s.Left = left
			}
			s.Left = min(s.Left, left)
			addrs, err := t.addresses(c, g.name)
			if err != nil {
				return err
			}
			s.Addresses = append(s.Addresses, addrs...)
		}
		if !s.Installed {
			s.Left = 0
		}
		slices.SortFunc(s.Addresses, netip.Addr.Compare)
		s.Addresses = slices.Compact(s.Addresses)
		return nil
	})
	if err != nil {
		return State{}, fmt.Errorf("look at guard: %w", err)
	}
	g.known = s.Current // somebody else may have removed them
	return s, nil
}

// Close ends the connection to the kernel. The guard stays as it is.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conn.close()
}

// look finds out once whether the tables are there.
func (g *Guard) look() error {
	if g.known {
		return nil
	}
	_, err := g.state()
	return err
}

func (g *Guard) build(c *nftables.Conn) error {
	for _, t := range g.tables {
		if err := t.build(c, g.name, g.digest); err != nil {
			return err
		}
	}
	return nil
}

// flush has what f queues done, all of it or nothing.
func (g *Guard) flush(f func(*nftables.Conn) error) error {
	return g.conn.do(func(c *nftables.Conn) error {
		if err := f(c); err != nil {
			return err
		}
		return c.Flush()
	})
}

// installed returns the digest of the table that is there.
func (t table) installed(c *nftables.Conn, name string) (string, error) {
	rules, err := c.GetRules(t.handle(name), &nftables.Chain{Name: darkChain})
	if err != nil || len(rules) == 0 {
		return "", err
	}
	digest, ok := userdata.GetString(rules[0].UserData, userdata.TypeComment)
	if !ok {
		digest = "unknown"
	}
	return digest, nil
}

// left returns how long all of the table is open.
func (t table) left(c *nftables.Conn, name string) (time.Duration, error) {
	elements, err := c.GetSetElements(t.timed(name, liveSet))
	if err != nil || len(elements) < len(t.keys) {
		return 0, err
	}
	left := elements[0].Expires
	for _, e := range elements {
		left = min(left, e.Expires)
	}
	return left, nil
}

// addresses returns those that the table guards.
func (t table) addresses(c *nftables.Conn, name string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, s := range t.sets {
		elements, err := c.GetSetElements(&nftables.Set{Table: t.handle(name), Name: s.name})
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				all = append(all, a)
			}
		}
	}
	return all, nil
}
