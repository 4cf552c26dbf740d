package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	bytecode         = 1 // attribute of a request
	condSource       = 7 // instruction: the local address is within a prefix
	sizeofRequest    = 56
	sizeofSocketID   = 48
)

// errNoDestroy is a kernel that cannot end connections for others.
var errNoDestroy = errors.New("this kernel cannot end connections (it lacks CONFIG_INET_DIAG_DESTROY)")

// killConnections ends the TCP connections of addresses of this host, with a
// reset to either end, and returns how many. Who listens goes on doing so.
func killConnections(ctx context.Context, addrs []netip.Addr) (int, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return 0, fmt.Errorf("find connections: %w", err)
	}
	defer conn.Close()
	deadline := time.Now().Add(answerTime)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	killed := 0
	for _, a := range addrs {
		families := []byte{unix.AF_INET6}
		if a.Is4() {
			families = []byte{unix.AF_INET, unix.AF_INET6} // sockets of IPv6 have connections of IPv4, too
		}
		for _, family := range families {
			n, err := killFamily(conn, family, a)
			killed += n
			if err != nil {
				return killed, err
			}
		}
	}
	return killed, nil
}

func killFamily(conn *netlink.Conn, family byte, a netip.Addr) (killed int, _ error) {
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(bytecode, localIs(a))
	filter, err := ae.Encode()
	if err != nil {
		return 0, err
	}
	// All but those that listen, are closed, or are only remembered.
	const states = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_SENT | 1<<unix.BPF_TCP_SYN_RECV |
		1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_CLOSE_WAIT |
		1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING | 1<<unix.BPF_TCP_NEW_SYN_RECV
	found, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   append(diagRequest(family, states, make([]byte, sizeofSocketID)), filter...),
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, nil // no such family in this kernel
	} else if err != nil {
		return 0, fmt.Errorf("find connections of %s: %w", a, err)
	}
	for _, m := range found {
		if len(m.Data) < 4+sizeofSocketID {
			continue
		}
		_, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDestroy, Flags: netlink.Request | netlink.Acknowledge},
			Data:   diagRequest(family, states, m.Data[4:4+sizeofSocketID]),
		})
		switch {
		case err == nil:
			killed++
		case errors.Is(err, unix.ENOENT): // it has ended meanwhile
		case errors.Is(err, unix.EOPNOTSUPP):
			return killed, errNoDestroy
		default:
			return killed, fmt.Errorf("end a connection of %s: %w", a, err)
		}
	}
	return killed, nil
}

// diagRequest is a struct inet_diag_req_v2.
func diagRequest(family byte, states uint32, id []byte) []byte {
	b := make([]byte, 0, sizeofRequest)
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, states)
	return append(b, id...)
}

// localIs is a program for the kernel that picks the sockets with a local
// address: one instruction with its operand. Its jumps are relative; to the
// end means yes, four beyond it no.
func localIs(a netip.Addr) []byte {
	family := byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	operand := []byte{family, byte(a.BitLen()), 0, 0, 0xff, 0xff, 0xff, 0xff} // any port
	operand = append(operand, a.AsSlice()...)
	size := 4 + len(operand)
	b := []byte{condSource, byte(size)}
	b = binary.NativeEndian.AppendUint16(b, uint16(size+4))
	return append(b, operand...)
}
