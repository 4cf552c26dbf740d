package kernelguard

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addressTables guard addresses. A host that does not have them is not
// disturbed by them being closed: it may forward to the host that has, ask for
// it and be told of it.
func addressTables(addrs []netip.Addr) []table {
	var (
		sets4, sets6               []set
		before, input, output, end []rule
	)
	for _, f := range families() {
		s := set{name: f.addresses, key: f.key}
		for _, a := range addrs {
			if f.has(a) {
				s.has = append(s.has, a.AsSlice())
			}
		}
		sets6 = append(sets6, s)
		if f.bytes == 4 {
			sets4 = append(sets4, s)
		}
		if len(s.has) == 0 {
			continue // a kernel may lack IPv6
		}
		// Before translation, which would lead the packet past us elsewhere.
		before = append(before, match(f.to(), local(false), jump(darkChain)))
		// Also by a socket whose address is gone.
		output = append(output, match(f.from(), jump(partingChain)))
		// What was translated on its way in leaves here with our address.
		end = append(end, match(f.from(), local(true), jump(partingChain)))
	}
	// Neighbour discovery: a question for the address, the answer, and the
	// question of a host that is about to take it. Bridged frames do not come
	// by input and output.
	const (
		solicitation, advertisement = 135, 136
		target                      = 8 // offset
	)
	v6 := families()[1]
	about := func(kind byte) []expr.Any {
		return append(append(v6.is(), protocol(unix.IPPROTO_ICMPV6)...), transport(0, 1), equal([]byte{kind}), transport(target, 16), in(v6.addresses))
	}
	if slices.ContainsFunc(addrs, v6.has) {
		input = append(input, match(about(solicitation), jump(darkChain)))
		output = append(output,
			match(about(advertisement), jump(darkChain)),
			match(v6.within(v6.saddr, netip.PrefixFrom(netip.IPv6Unspecified(), 128)), about(solicitation), jump(darkChain)))
	}

	ip := inet(sets6,
		dark(match(countDrop())),
		parting(darkChain),
		chain{name: "prerouting", hook: nftables.ChainHookPrerouting, priority: early, rules: before},
		chain{name: "input", hook: nftables.ChainHookInput, priority: early, rules: input},
		chain{name: "output", hook: nftables.ChainHookOutput, priority: early, rules: output},
		chain{name: "postrouting", hook: nftables.ChainHookPostrouting, priority: late, rules: end})

	// Of ARP over Ethernet (RFC 826): who asks, and whom for.
	const sender, sought = 14, 24
	v4 := families()[0].addresses
	ask := arp(sets4,
		dark(match(countDrop())),
		// Not what another host tells of itself in the form of a question.
		chain{name: "input", hook: arpIn(), priority: early, rules: []rule{
			match([]expr.Any{network(sender, 4), notIn(v4), network(sought, 4), in(v4)}, jump(darkChain)),
		}},
		chain{name: "output", hook: arpOut(), priority: early, rules: []rule{
			match([]expr.Any{network(sender, 4), in(v4)}, jump(darkChain)),
		}})
	return []table{ip, ask}
}

// The hooks of the arp family, of linux/netfilter_arp.h.
func arpIn() *nftables.ChainHook  { return nftables.ChainHookRef(0) }
func arpOut() *nftables.ChainHook { return nftables.ChainHookRef(1) }
