package kernelguard

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A rule is what a packet must match and what becomes of it then.
type rule []expr.Any

// match joins conditions and a verdict.
func match(parts ...[]expr.Any) rule {
	var r rule
	for _, p := range parts {
		r = append(r, p...)
	}
	return r
}

// reg is the register that every condition uses, one after the other.
const reg = 1

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: reg, SetName: set} }

func notIn(set string) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func network(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func transport(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
}

// A family is one of the two of IP, and where its header has what.
type family struct {
	nfproto   byte
	bytes     uint32 // of an address
	saddr     uint32 // offsets
	daddr     uint32
	addresses string // the set of those that are guarded
	key       nftables.SetDatatype
}

// families are those of IP.
func families() []family {
	return []family{
		{nfproto: unix.NFPROTO_IPV4, bytes: 4, saddr: 12, daddr: 16, addresses: "address4", key: nftables.TypeIPAddr},
		{nfproto: unix.NFPROTO_IPV6, bytes: 16, saddr: 8, daddr: 24, addresses: "address6", key: nftables.TypeIP6Addr},
	}
}

func (f family) has(a netip.Addr) bool { return a.BitLen() == int(f.bytes)*8 }

func (f family) is() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{f.nfproto})}
}

// from and to match a packet by the set of guarded addresses.
func (f family) from() []expr.Any { return append(f.is(), network(f.saddr, f.bytes), in(f.addresses)) }

func (f family) to() []expr.Any { return append(f.is(), network(f.daddr, f.bytes), in(f.addresses)) }

// within matches the address at an offset of the header.
func (f family) within(offset uint32, p netip.Prefix) []expr.Any {
	parts := append(f.is(), network(offset, f.bytes))
	if p.Bits() < p.Addr().BitLen() {
		mask := make([]byte, f.bytes)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		parts = append(parts, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: f.bytes, Mask: mask, Xor: make([]byte, f.bytes)})
	}
	return append(parts, equal(p.Masked().Addr().AsSlice()))
}

// local matches if the packet's address is one of this host at this moment.
func local(source bool) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: source, FlagDADDR: !source},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyL4PROTO), equal([]byte{number})}
}

// lives matches while the set has the element for the packet's family.
func lives(set string) []expr.Any { return []expr.Any{meta(expr.MetaKeyNFPROTO), in(set)} }

// tcpReset matches a TCP segment that only ends its connection.
func tcpReset() []expr.Any {
	const rst = 0x04
	return append(protocol(unix.IPPROTO_TCP), transport(13, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{rst}, Xor: []byte{0}}, equal([]byte{rst}))
}

func loopback(key expr.MetaKey) []expr.Any {
	return []expr.Any{meta(key), equal(binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK))}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
func accept() []expr.Any    { return verdict(expr.VerdictAccept) }
func giveBack() []expr.Any  { return verdict(expr.VerdictReturn) }
func countDrop() []expr.Any { return append([]expr.Any{&expr.Counter{}}, verdict(expr.VerdictDrop)...) }

func countReset() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func countUnreachable() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}
