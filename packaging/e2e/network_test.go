package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
)

// The lab's network. The addresses are those for documentation (RFC 5737).
const (
	bridgeName  = "lab0"
	prefixLen   = 24
	answersPort = 7000 // where each host answers
	workerPort  = 7001 // where the unit answers that the queue manages
	parserPort  = 7002 // and that which the parser does
)

func clientAddr() netip.Addr  { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }
func serviceAddr() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 10}) }

// hostAddr is the address of the i-th host, from 0.
func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}) }

// etcdAddr is the address of the i-th member of etcd, from 0.
func etcdAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(21 + i)}) }

// makeBridge makes the switch of the lab, with the client and etcd on it.
func makeBridge(ctx context.Context) error {
	all := [][]string{
		{"link", "set", "lo", "up"},
		// With an address of its own: otherwise it has the lowest of its ports,
		// another one whenever these change.
		{"link", "add", bridgeName, "address", "02:00:00:00:01:00", "type", "bridge", "mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"},
		{"link", "set", bridgeName, "up"},
	}
	for _, a := range []netip.Addr{clientAddr(), etcdAddr(0), etcdAddr(1), etcdAddr(2)} {
		all = append(all, []string{"addr", "add", fmt.Sprintf("%s/%d", a, prefixLen), "dev", bridgeName})
	}
	for _, args := range all {
		if _, err := command(ctx, "ip", args...); err != nil {
			return err
		}
	}
	// The kernel keeps what is sent to a neighbour that does not answer, up to
	// a whole socket's buffer, which then stops the prober. Let it keep one.
	if err := os.WriteFile("/proc/sys/net/ipv4/neigh/"+bridgeName+"/unres_qlen_bytes", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("shorten the queue to neighbours: %w", err)
	}
	return nil
}
