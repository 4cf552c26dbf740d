package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// The bytes of ARP over Ethernet (RFC 826) and of neighbour discovery
// (RFC 4861), as far as they are needed here.
const (
	arpRequest, arpReply = 1, 2

	solicitation, advertisement = 135, 136
	fromRouter                  = 1 << 31 // flags of an advertisement
	override                    = 1 << 29
	sourceOption, targetOption  = 1, 2 // link-layer addresses
)

// broadcast is everybody on an Ethernet.
func broadcast() net.HardwareAddr { return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// arp returns an ARP packet.
func arp(operation uint16, sender net.HardwareAddr, from netip.Addr, target net.HardwareAddr, to netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, and the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(append(b, sender...), from.AsSlice()...)
	return append(append(b, target...), to.AsSlice()...)
}

// gratuitous returns both forms in which a host tells of its own address; some
// neighbours believe only one (RFC 5227, section 3).
func gratuitous(mac net.HardwareAddr, a netip.Addr) [][]byte {
	return [][]byte{
		arp(arpRequest, mac, a, make(net.HardwareAddr, 6), a),
		arp(arpReply, mac, a, broadcast(), a),
	}
}

// arpProbe asks for an address without telling of one (RFC 5227, section
// 2.1.1).
func arpProbe(mac net.HardwareAddr, a netip.Addr) []byte {
	return arp(arpRequest, mac, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), a)
}

// arpClaim returns whose an ARP packet says an address is: of one who has it,
// or of another one who probes for it.
func arpClaim(b []byte, a netip.Addr) (net.HardwareAddr, bool) {
	if len(b) < 28 || b[4] != 6 || b[5] != 4 {
		return nil, false
	}
	mac := net.HardwareAddr(slices.Clone(b[8:14]))
	from, _ := netip.AddrFromSlice(b[14:18])
	to, _ := netip.AddrFromSlice(b[24:28])
	probes := from.IsUnspecified() && to == a && binary.BigEndian.Uint16(b[6:]) == arpRequest
	return mac, from == a || probes
}

// advertise returns an unsolicited neighbour advertisement. The kernel fills
// in its checksum.
func advertise(mac net.HardwareAddr, a netip.Addr, router bool) []byte {
	flags := uint32(override)
	if router {
		flags |= fromRouter
	}
	b := []byte{advertisement, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, flags)
	b = append(b, a.AsSlice()...)
	return append(append(b, targetOption, 1), mac...)
}

// solicit returns the IPv6 packet of a host that looks whether an address is
// free (RFC 4862, section 5.4.2).
func solicit(a netip.Addr) []byte {
	icmp := append([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, a.AsSlice()...)
	to := solicited(a)
	src := netip.IPv6Unspecified()
	binary.BigEndian.PutUint16(icmp[2:], checksum(src, to, icmp))
	b := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255}
	b = append(append(b, src.AsSlice()...), to.AsSlice()...)
	return append(b, icmp...)
}

// solicited is the group of those who may have an address.
func solicited(a netip.Addr) netip.Addr {
	b := netip.MustParseAddr("ff02::1:ff00:0").As16()
	own := a.As16()
	copy(b[13:], own[13:])
	return netip.AddrFrom16(b)
}

// multicast is the Ethernet address of an IPv6 group.
func multicast(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// checksum is that of ICMPv6, with its pseudo header (RFC 8200, section 8.1).
func checksum(from, to netip.Addr, icmp []byte) uint16 {
	b := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(icmp)))
	b = append(append(b, 0, 0, 0, 58), icmp...)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ndClaim returns whether an IPv6 packet says that somebody has an address, or
// is about to take it.
func ndClaim(b []byte, a netip.Addr) bool {
	if len(b) < 40+24 || b[0]>>4 != 6 || b[6] != 58 {
		return false
	}
	icmp := b[40:]
	target, _ := netip.AddrFromSlice(icmp[8:24])
	from, _ := netip.AddrFromSlice(b[8:24])
	return target == a && (icmp[0] == advertisement || icmp[0] == solicitation && from.IsUnspecified())
}

// advertised returns which address an advertisement tells of, and whose it is.
func advertised(icmp []byte) (netip.Addr, net.HardwareAddr, bool) {
	if len(icmp) < 24 || icmp[0] != advertisement {
		return netip.Addr{}, nil, false
	}
	target, _ := netip.AddrFromSlice(icmp[8:24])
	for options := icmp[24:]; len(options) >= 8; {
		size := int(options[1]) * 8
		if size == 0 || size > len(options) {
			break
		}
		if options[0] == targetOption {
			return target, net.HardwareAddr(slices.Clone(options[2:8])), true
		}
		options = options[size:]
	}
	return target, nil, false
}
