package kernelguard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// errNoDestroy is a kernel that cannot end connections for others.
var errNoDestroy = errors.New("this kernel cannot end connections (it lacks CONFIG_INET_DIAG_DESTROY)")

// Connections are TCP connections of this host that are to end.
type Connections struct {
	found []found
}

// A found is one end of a connection, as the kernel names it.
type found struct {
	family byte
	id     []byte
}

// ofAddresses finds the connections that have one of the addresses at this end.
func ofAddresses(ctx context.Context, addrs []netip.Addr) (Connections, error) {
	var program [][]condition
	for _, a := range addrs {
		program = append(program, []condition{localIs(a)})
	}
	return find(ctx, program, func(local, remote netip.Addr) bool { return false })
}

// ofPorts finds the connections that a guard of ports would not let through.
func ofPorts(ctx context.Context, p Ports) (Connections, error) {
	var program [][]condition
	for _, r := range p.Ranges {
		if r.Protocol == unix.IPPROTO_TCP {
			program = append(program, []condition{portIs(portAtLeast, r.First), portIs(portAtMost, r.Last)})
		}
	}
	return find(ctx, program, func(local, remote netip.Addr) bool {
		return p.Loopback && (remote.IsLoopback() || remote == local) ||
			slices.ContainsFunc(p.Allow, func(a netip.Prefix) bool { return a.Contains(remote) })
	})
}

// Of linux/sock_diag.h and linux/inet_diag.h.
const (
	tcpdiagGetsock = 18
	sockDestroy    = 21
	bytecode       = 1 // attribute of a request
	sizeofSocketID = 48

	// Instructions of a program that picks sockets. Each names how far it is to the next one when
	// it holds, and when not; to the end of the program is yes, and four bytes
	// beyond it no.
	jumpAlways  = 1 // as if it did not hold
	portAtLeast = 2
	portAtMost  = 3
	addressIs   = 7
)

// dial connects to the kernel's part that knows sockets.
func dial(ctx context.Context) (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(answerTime)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// states are all of a connection's but those that listen, are closed, or are
// only remembered.
const states = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_SENT | 1<<unix.BPF_TCP_SYN_RECV |
	1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_CLOSE_WAIT |
	1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING | 1<<unix.BPF_TCP_NEW_SYN_RECV

// find asks the kernel for sockets of both families at once, as only its older
// request can: it looks through all that the machine could have, which takes
// milliseconds.
func find(ctx context.Context, program [][]condition, spare func(local, remote netip.Addr) bool) (Connections, error) {
	if len(program) == 0 {
		return Connections{}, nil
	}
	conn, err := dial(ctx)
	if err != nil {
		return Connections{}, fmt.Errorf("find connections: %w", err)
	}
	defer conn.Close()
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(bytecode, assemble(program))
	filter, err := ae.Encode()
	if err != nil {
		return Connections{}, fmt.Errorf("find connections: %w", err)
	}
	request := append(make([]byte, 4+sizeofSocketID), binary.NativeEndian.AppendUint32(nil, states)...)
	request = append(request, make([]byte, 4)...) // a struct inet_diag_req
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: tcpdiagGetsock, Flags: netlink.Request | netlink.Dump},
		Data:   append(request, filter...),
	})
	if err != nil {
		return Connections{}, fmt.Errorf("find connections: %w", explain(err))
	}
	var all []found
	for _, m := range replies {
		if len(m.Data) < 4+sizeofSocketID {
			return Connections{}, errors.New("find connections: short answer from the kernel")
		}
		f := found{m.Data[0], m.Data[4 : 4+sizeofSocketID]}
		if !spare(f.ends()) {
			all = append(all, f)
		}
	}
	return Connections{all}, nil
}

// end ends the connections, with a reset to both ends, and returns how many it
// has ended.
func (c Connections) end(ctx context.Context) (ended int, _ error) {
	if len(c.found) == 0 {
		return 0, nil
	}
	conn, err := dial(ctx)
	if err != nil {
		return 0, fmt.Errorf("end connections: %w", err)
	}
	defer conn.Close()
	for _, f := range c.found {
		_, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDestroy, Flags: netlink.Request | netlink.Acknowledge},
			Data:   diagRequest(f.family, f.id),
		})
		switch {
		case err == nil:
			ended++
		case errors.Is(err, unix.ENOENT): // it has ended meanwhile
		case errors.Is(err, unix.EOPNOTSUPP):
			return ended, errNoDestroy
		default:
			return ended, fmt.Errorf("end connections: %w", explain(err))
		}
	}
	return ended, nil
}

// diagRequest is a struct inet_diag_req_v2.
func diagRequest(family byte, id []byte) []byte {
	b := []byte{family, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, states)
	return append(b, id...)
}

// ends are the addresses of the connection.
func (f found) ends() (local, remote netip.Addr) {
	size := 4
	if f.family == unix.AF_INET6 {
		size = 16
	}
	local, _ = netip.AddrFromSlice(f.id[4 : 4+size])
	remote, _ = netip.AddrFromSlice(f.id[20 : 20+size])
	return local.Unmap(), remote.Unmap()
}

// A condition is an instruction of a program without its jumps.
type condition struct {
	code    byte
	operand []byte
}

func (c condition) size() int { return 4 + len(c.operand) }

// localIs holds for sockets by their address at this end.
func localIs(a netip.Addr) condition {
	family := byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	operand := []byte{family, byte(a.BitLen()), 0, 0, 0xff, 0xff, 0xff, 0xff} // any port
	return condition{addressIs, append(operand, a.AsSlice()...)}
}

// portIs holds for sockets by their port at this end.
func portIs(code byte, port uint16) condition {
	return condition{code, instruction(0, 0, int(port))}
}

// assemble makes the program that holds if all conditions of one alternative
// do.
func assemble(alternatives [][]condition) []byte {
	const jumpSize = 4
	left := 0 // to the end of the program
	for i, all := range alternatives {
		for _, c := range all {
			left += c.size()
		}
		if i > 0 {
			left += jumpSize
		}
	}
	var b []byte
	for i, all := range alternatives {
		next := 0 // to the next alternative, or to four bytes beyond the end
		for _, c := range all {
			next += c.size()
		}
		next += jumpSize
		for _, c := range all {
			b = append(append(b, instruction(c.code, c.size(), next)...), c.operand...)
			next, left = next-c.size(), left-c.size()
		}
		if i < len(alternatives)-1 {
			b = append(b, instruction(jumpAlways, jumpSize, left)...)
			left -= jumpSize
		}
	}
	return b
}

// instruction is a struct inet_diag_bc_op.
func instruction(code byte, yes, no int) []byte {
	return binary.NativeEndian.AppendUint16([]byte{code, byte(yes)}, uint16(no))
}
