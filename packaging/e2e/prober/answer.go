package prober

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Answer answers for a node at each of its addresses, until ctx ends. Whether
// the service's address is among them is not its business. It calls ready once
// it hears questions.
func Answer(ctx context.Context, node string, port uint16, ready func()) error {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}), err)
	}}
	c, err := listen.ListenPacket(ctx, "udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	if err != nil {
		return fmt.Errorf("answer for %s: %w", node, err)
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	if err := buffer(conn, 1<<20); err != nil { // of some thousand questions
		return fmt.Errorf("answer for %s: %w", node, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
	ready()
	buf, where := make([]byte, 512), make([]byte, 128)
	for {
		n, k, _, from, err := conn.ReadMsgUDPAddrPort(buf, where)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("answer for %s: %w", node, err)
		case n != questionSize:
			continue
		}
		// What tells where a question came in tells the kernel where the answer
		// goes out: at the same address, if the node still has it.
		_, _, _ = conn.WriteMsgUDPAddrPort(append(buf[:n:n], node...), where[:k], from)
	}
}
