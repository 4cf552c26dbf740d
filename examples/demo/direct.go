package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A direct asks each node for the service's address at layer 2: the frame bears
// the hardware address of the node, whoever the network takes for the owner of
// that address. Only a node whose kernel has it, and lets both question and
// answer pass, answers. That it has the address is no proof by itself: one that
// a kernel guard has closed is left behind and silent on purpose.
type direct struct {
	conn   *net.UDPConn // where answers arrive; its port tells them from those to clients
	socket int          // sends, and receives nothing
	from   netip.AddrPort
	to     netip.AddrPort
	link   int
	doors  []net.HardwareAddr
}

// openDirect opens the sockets that ask each door for to, through the link with
// that index, on which the client has the address from.
func openDirect(link int, from netip.Addr, to netip.AddrPort, doors []net.HardwareAddr) (*direct, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return nil, fmt.Errorf("open the socket for direct answers: %w", err)
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a packet socket: %w", err), conn.Close())
	}
	d := &direct{conn: conn, socket: socket, to: to, link: link, doors: doors}
	d.from = netip.AddrPortFrom(from, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	return d, conn.SetReadBuffer(4 << 20)
}

func (d *direct) close() error { return errors.Join(d.conn.Close(), unix.Close(d.socket)) }

// ask puts the question to every node. Nobody there, no carrier: that is what
// is measured.
func (d *direct) ask(question []byte) {
	packet := packet(d.from, d.to, question)
	for _, mac := range d.doors {
		to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x00}), Ifindex: d.link, Halen: uint8(len(mac))}
		copy(to.Addr[:], mac)
		_ = unix.Sendto(d.socket, packet, unix.MSG_DONTWAIT, to)
	}
}

// packet returns an IPv4 packet (RFC 791) with a UDP datagram (RFC 768) that
// has no checksum, as it may.
func packet(from, to netip.AddrPort, payload []byte) []byte {
	const header, udp = 20, 8
	src, dst := from.Addr().As4(), to.Addr().As4()
	length := header + udp + len(payload)
	p := make([]byte, 0, length)
	p = append(p, 0x45, 0)                               // version 4, five words of header, no class
	p = binary.BigEndian.AppendUint16(p, uint16(length)) //nolint:gosec // questions are short
	p = append(p, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP)   // no identification, not to be fragmented, 64 hops
	p = append(p, 0, 0)                                  // the checksum, below
	p = append(append(p, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(udp+len(payload))) //nolint:gosec // see above
	p = append(p, 0, 0)
	return append(p, payload...)
}

// checksum is that of an IP header, whose own field is zero (RFC 1071).
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
