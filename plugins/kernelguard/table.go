package kernelguard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// What is in every table of a guard.
const (
	liveSet    = "live"    // its elements, one for each family of packets, live while the guard is open
	partingSet = "parting" // likewise, while resets may leave a guard that has just closed
	darkChain  = "dark"    // drops unless the guard is open; its first rule's comment tells the digest
	// partingChain lets resets out for a moment, and else does as the chain
	// that decides.
	partingChain = "leaving"
)

// A table is the whole of one nftables table.
type table struct {
	family nftables.TableFamily
	keys   []byte // of the elements of live and parting
	sets   []set  // what is guarded
	chains []chain
}

// A set holds addresses that are guarded.
type set struct {
	name string
	key  nftables.SetDatatype
	has  [][]byte
}

// A chain has a hook, or others jump to it.
type chain struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// Priorities: before conntrack and every address translation, and after them.
const (
	early nftables.ChainPriority = -300
	late  nftables.ChainPriority = 300
)

// dark is the chain that decides.
func dark(closed ...rule) chain {
	return chain{name: darkChain, rules: append([]rule{match(lives(liveSet), giveBack())}, closed...)}
}

func parting(decide string) chain {
	return chain{name: partingChain, rules: []rule{match(tcpReset(), lives(partingSet), accept()), match(jump(decide))}}
}

// handle is what the library wants of a table.
func (t table) handle(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: t.family}
}

// timed is a set of elements with timeouts. The id only has to differ from
// others in the same batch.
func (t table) timed(name, set string) *nftables.Set {
	return &nftables.Set{Table: t.handle(name), Name: set, ID: idOf(set), KeyType: nftables.TypeNFProto, HasTimeout: true}
}

func idOf(set string) uint32 {
	switch set {
	case liveSet:
		return 1
	case partingSet:
		return 2
	}
	return 3
}

// elements are those that make a set of this table live for a time.
func (t table) elements(left time.Duration) []nftables.SetElement {
	var all []nftables.SetElement
	for _, key := range t.keys {
		all = append(all, nftables.SetElement{Key: []byte{key}, Timeout: left})
	}
	return all
}

// build queues the table, in place of one that is there. It is closed.
func (t table) build(c *nftables.Conn, name, digest string) error {
	h := t.handle(name)
	t.remove(c, name)
	c.AddTable(h)
	for _, s := range []string{liveSet, partingSet} {
		if err := c.AddSet(t.timed(name, s), nil); err != nil {
			return fmt.Errorf("set %s: %w", s, err)
		}
	}
	for i, s := range t.sets {
		elements := make([]nftables.SetElement, 0, len(s.has))
		for _, key := range s.has {
			elements = append(elements, nftables.SetElement{Key: key})
		}
		n := nftables.Set{Table: h, Name: s.name, ID: uint32(10 + i), KeyType: s.key}
		if err := c.AddSet(&n, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	pass := nftables.ChainPolicyAccept
	for _, ch := range t.chains {
		n := &nftables.Chain{Name: ch.name, Table: h}
		if ch.hook != nil {
			n.Type, n.Hooknum, n.Priority, n.Policy = nftables.ChainTypeFilter, ch.hook, &ch.priority, &pass
		}
		c.AddChain(n)
		for i, r := range ch.rules {
			rule := &nftables.Rule{Table: h, Chain: n, Exprs: r}
			if ch.name == darkChain && i == 0 {
				rule.UserData = userdata.AppendString(nil, userdata.TypeComment, digest)
			}
			c.AddRule(rule)
		}
	}
	return nil
}

// remove queues the removal of the table, which need not be there.
func (t table) remove(c *nftables.Conn, name string) {
	c.AddTable(t.handle(name))
	c.DelTable(t.handle(name))
}

// digestOf is the same for tables that are the same.
func digestOf(tables []table) (string, error) {
	sum := sha256.New()
	for _, t := range tables {
		fmt.Fprintf(sum, "table %d %x %v\n", t.family, t.keys, t.sets)
		for _, ch := range t.chains {
			hook := int64(-1)
			if ch.hook != nil {
				hook = int64(*ch.hook)
			}
			fmt.Fprintf(sum, "chain %s %d %d\n", ch.name, hook, ch.priority)
			for _, r := range ch.rules {
				for _, e := range r {
					b, err := expr.Marshal(byte(t.family), e)
					if err != nil {
						return "", fmt.Errorf("encode chain %s: %w", ch.name, err)
					}
					fmt.Fprintf(sum, "%x ", b)
				}
				fmt.Fprintln(sum)
			}
		}
	}
	return "deputy " + hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// inet and arp are the kinds of tables.
func inet(sets []set, chains ...chain) table {
	return table{family: nftables.TableFamilyINet, keys: []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}, sets: sets, chains: chains}
}

func arp(sets []set, chains ...chain) table {
	return table{family: nftables.TableFamilyARP, keys: []byte{unix.NFPROTO_ARP}, sets: sets, chains: chains}
}
