package e2e

import (
	"context"
	"fmt"
	"strings"
)

// A cut is a part of the network that a host is cut off from, one way or both.
// The prober's questions and the answers always get through, so that it hears
// also a host that nobody else does.
type cut struct {
	toEtcd, fromEtcd, hosts bool
}

// cutOff drops what a host sends to those, or gets from them.
func (l *lab) cutOff(ctx context.Context, h *host, what cut) error {
	etcds := fmt.Sprintf("{ %s, %s, %s }", etcdAddr(0), etcdAddr(1), etcdAddr(2))
	var b strings.Builder
	fmt.Fprintf(&b, "add table inet cut-%s\nadd table bridge cut-%[1]s\n", h.name)
	rule := func(family, hook, text string) {
		fmt.Fprintf(&b, "add chain %s cut-%s %s { type filter hook %[3]s priority 0; }\nadd rule %[1]s cut-%[2]s %[3]s %s drop\n", family, h.name, hook, text)
	}
	if what.toEtcd {
		rule("inet", "input", fmt.Sprintf("ip saddr %s ip daddr %s", h.addr, etcds))
	}
	if what.fromEtcd {
		rule("inet", "output", fmt.Sprintf("ip saddr %s ip daddr %s", etcds, h.addr))
	}
	if what.hosts {
		port := "vb-" + h.name
		rule("bridge", "forward", "iifname "+port)
		rule("bridge", "forward", "oifname "+port)
	}
	return l.nft(ctx, b.String())
}

// mend undoes cutOff.
func (l *lab) mend(ctx context.Context, h *host) error {
	return l.nft(ctx, fmt.Sprintf("add table inet cut-%s\ndelete table inet cut-%[1]s\nadd table bridge cut-%[1]s\ndelete table bridge cut-%[1]s\n", h.name))
}

// nft runs commands for the lab's own network.
func (l *lab) nft(ctx context.Context, text string) error {
	_, err := command(ctx, "sh", "-c", `printf %s "$1" | nft -f -`, "sh", text)
	return err
}
