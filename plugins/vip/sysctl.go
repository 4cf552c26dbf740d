package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// cautions are settings of the kernel by which the addresses may be here and
// not answer, or go with another one.
func (v *vip) cautions(l link) []string {
	short, long := false, false // prefixes of IPv4
	for _, p := range v.places() {
		short = short || p.Addr().Is4() && !p.IsSingleIP()
		long = long || p.Addr().Is4() && p.IsSingleIP()
	}
	var all []string
	// What is said here is in networking/ip-sysctl of the kernel's documentation.
	ignore := v4Sysctl(l.name, "arp_ignore")
	switch {
	case (short || long) && ignore == 8:
		all = append(all, fmt.Sprintf("arp_ignore = 8: no ARP request is answered: sysctl net.ipv4.conf.%s.arp_ignore=0, and the same of conf.all", l.name))
	case long && ignore == 2:
		all = append(all, "arp_ignore = 2: ARP is answered only to hosts of the address's own prefix: give the address one, such as /24")
	}
	if short && v4Sysctl(l.name, "promote_secondaries") == 0 {
		all = append(all, fmt.Sprintf("promote_secondaries = 0: who removes the host's own address of the same prefix removes this one, too: sysctl net.ipv4.conf.%s.promote_secondaries=1, or give the address /32", l.name))
	}
	return all
}

// v4Sysctl is what the kernel goes by for an interface: the greater one of its
// own and that of all.
func v4Sysctl(name, key string) int {
	greatest := 0
	for _, of := range []string{"all", name} {
		said, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + of + "/" + key)
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(said))); err == nil {
			greatest = max(greatest, n)
		}
	}
	return greatest
}
