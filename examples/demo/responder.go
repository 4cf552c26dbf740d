package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A responder answers on a node's behalf, at whatever address of it is asked,
// for as long as the node is on. It serves nothing that deputy moves: that the
// service's address is answered shows where that address works.
func listenAsNode(port string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctl := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		})
		return errors.Join(ctl, err)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", net.JoinHostPort("0.0.0.0", port))
	if err != nil {
		return nil, fmt.Errorf("answer for the node: %w", err)
	}
	return c.(*net.UDPConn), nil
}

// respond answers until c is closed.
func respond(c *net.UDPConn, node string) error {
	buf, where := make([]byte, 512), make([]byte, 128)
	for {
		n, k, _, from, err := c.ReadMsgUDPAddrPort(buf, where)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("answer for %s: %w", node, err)
		}
		r := reply{Node: node, PID: os.Getpid()}
		if json.Unmarshal(buf[:n], &r.Seq) != nil {
			continue
		}
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		// What tells where a question came in tells the kernel where the answer
		// goes out: at the same address, if the node still has it.
		_, _, _ = c.WriteMsgUDPAddrPort(text, where[:k], from)
	}
}
