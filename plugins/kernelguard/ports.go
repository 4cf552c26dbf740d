package kernelguard

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A PortRange is ports of this host.
type PortRange struct {
	Protocol    byte // IPPROTO_TCP or IPPROTO_UDP
	First, Last uint16
}

// Ports are guarded against everybody but those who are always let through.
type Ports struct {
	Ranges   []PortRange
	Allow    []netip.Prefix // who is always let through
	Loopback bool           // so is this host itself
	Reject   bool           // refuse rather than drop
}

// refuseChain does as dark, but tells who is refused.
const refuseChain = "refuse"

func portTables(p Ports) []table {
	before, output, end := passes(p, true), passes(p, false), passes(p, false)
	decide := darkChain
	if p.Reject {
		decide = refuseChain
	}
	for _, r := range p.Ranges {
		before = append(before, match(r.at(2), local(false), jump(decide)))
		if p.Reject { // what refuses leaves from here, too
			output = append(output, match(r.at(0), tcpReset(), giveBack()))
			end = append(end, match(r.at(0), tcpReset(), giveBack()))
		}
		output = append(output, match(r.at(0), jump(partingChain)))
		// What was translated on its way in leaves here with our port.
		end = append(end, match(r.at(0), local(true), jump(partingChain)))
	}
	return []table{inet(nil,
		dark(match(countDrop())),
		parting(darkChain),
		chain{name: refuseChain, rules: []rule{
			match(lives(liveSet), giveBack()),
			match(protocol(unix.IPPROTO_TCP), countReset()),
			match(countUnreachable()),
		}},
		chain{name: "prerouting", hook: nftables.ChainHookPrerouting, priority: early, rules: before},
		chain{name: "output", hook: nftables.ChainHookOutput, priority: early, rules: output},
		chain{name: "postrouting", hook: nftables.ChainHookPostrouting, priority: late, rules: end})}
}

// passes are the rules for those who are always let through.
func passes(p Ports, inbound bool) []rule {
	var all []rule
	if p.Loopback {
		key := expr.MetaKeyOIFTYPE
		if inbound {
			key = expr.MetaKeyIIFTYPE
		}
		all = append(all, match(loopback(key), giveBack()))
	}
	for _, f := range families() {
		other := f.daddr
		if inbound {
			other = f.saddr
		}
		for _, a := range p.Allow {
			if f.has(a.Addr()) {
				all = append(all, match(f.within(other, a), giveBack()))
			}
		}
	}
	return all
}

// at matches by the port at an offset of the transport's header.
func (r PortRange) at(offset uint32) []expr.Any {
	parts := append(protocol(r.Protocol), transport(offset, 2))
	first, last := binary.BigEndian.AppendUint16(nil, r.First), binary.BigEndian.AppendUint16(nil, r.Last)
	if r.First == r.Last {
		return append(parts, equal(first))
	}
	return append(parts, &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: first, ToData: last})
}
