package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A change is one of the host's interfaces or addresses, as the kernel tells.
type change struct {
	link  *link  // of an interface
	entry *entry // of an address
	gone  bool   // it was removed
	event uint32 // of an interface: IFLA_EVENT, or zero
	by    uint32 // the port of who asked for it; zero: the kernel does not tell
	lost  bool   // more has happened than the kernel could tell
}

func (k *rtnetlink) hear(ctx context.Context, tell func(change)) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	if err != nil {
		return fmt.Errorf("hear of interfaces: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	tell(change{lost: true}) // before that
	for {
		told, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS):
			tell(change{lost: true})
			continue
		case err != nil:
			return fmt.Errorf("hear of interfaces: %w", err)
		}
		for _, m := range told {
			c := change{by: m.Header.PID}
			if len(m.Data) == 0 || m.Data[0] == unix.AF_BRIDGE { // of ports, as bridges see them
				continue
			}
			switch m.Header.Type {
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				var l link
				l, c.event, err = parseLink(m.Data)
				c.link, c.gone = &l, m.Header.Type == unix.RTM_DELLINK
			case unix.RTM_NEWADDR, unix.RTM_DELADDR:
				var e entry
				e, err = parseEntry(m.Data)
				c.entry, c.gone = &e, m.Header.Type == unix.RTM_DELADDR
			default:
				continue
			}
			if err == nil {
				tell(c)
			}
		}
	}
}

// whose names the process behind a netlink port: its first one has the number
// of the process. It may have ended.
func whose(port uint32) string {
	if port == 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("process %d, which has ended", port)
	}
	return fmt.Sprintf("%s (%d)", strings.TrimSpace(string(name)), port)
}
