package prober

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// datagram returns an IPv4 packet (RFC 791) that bears a UDP datagram without
// a checksum, which it need not have (RFC 768).
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	const header, udp = 20, 8
	p := make([]byte, header+udp, header+udp+len(payload))
	p[0] = 0x45 // version 4, a header of five words
	binary.BigEndian.PutUint16(p[2:], uint16(header+udp+len(payload)))
	p[6] = 0x40 // not to be fragmented
	p[8], p[9] = 64, unix.IPPROTO_UDP
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[10:], checksum(p[:header]))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(udp+len(payload)))
	return append(p, payload...)
}

// checksum is that of a header whose own field is zero (RFC 1071).
func checksum(header []byte) uint16 {
	var sum uint32
	for ; len(header) > 1; header = header[2:] {
		sum += uint32(binary.BigEndian.Uint16(header))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
