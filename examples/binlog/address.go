package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// address brings the service's address up or down and returns what the kernel
// says about it then. It is a small brother of deputy's vip plugin.
func address(a act, args []string, device string) (int, error) {
	if len(args) != 2 {
		return exitUsage, errors.New("want up or down, and an address such as 192.0.2.10/32")
	}
	want, err := netlink.ParseAddr(args[1])
	if err != nil {
		return exitUsage, err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return exitUnknown, fmt.Errorf("find %s: %w", device, err)
	}
	have, err := has(link, want)
	if err != nil {
		return exitUnknown, err
	}
	switch up := args[0] == "up"; {
	case !up && args[0] != "down":
		return exitUsage, fmt.Errorf("neither up nor down: %q", args[0])
	case up == have:
		return exitAlready, nil
	case up:
		return bring(a, link, want)
	default:
		return remove(link, want)
	}
}

func bring(a act, link netlink.Link, addr *netlink.Addr) (int, error) {
	if err := a.mayServe(); err != nil {
		return exitUnchanged, err
	}
	addr.Flags |= unix.IFA_F_NOPREFIXROUTE // the address comes and goes, the route to the network stays
	if err := netlink.AddrAdd(link, addr); err != nil {
		return exitUnchanged, fmt.Errorf("add %s: %w", addr.IP, err)
	}
	err := announce(link, addr.IP)
	if err == nil {
		var have bool
		if have, err = has(link, addr); err == nil && !have {
			err = fmt.Errorf("%s did not stay on %s", addr.IP, link.Attrs().Name)
		}
	}
	if err != nil {
		code, undo := remove(link, addr)
		if undo != nil {
			return code, errors.Join(err, undo)
		}
		return exitUnchanged, err
	}
	return exitDone, nil
}

func remove(link netlink.Link, addr *netlink.Addr) (int, error) {
	if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return exitUnknown, fmt.Errorf("delete %s: %w", addr.IP, err)
	}
	switch have, err := has(link, addr); {
	case err != nil:
		return exitUnknown, err
	case have:
		return exitUnknown, fmt.Errorf("%s is still on %s", addr.IP, link.Attrs().Name)
	}
	return exitDone, nil
}

// has asks the kernel whether the address is there, whatever its prefix.
func has(link netlink.Link, addr *netlink.Addr) (bool, error) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		if a.IP.Equal(addr.IP) {
			return true, nil
		}
	}
	return false, nil
}

// announce tells the neighbours where the address is now, by a gratuitous ARP
// request and reply (RFC 5227, section 3): some listen to the one, some to
// the other.
func announce(link netlink.Link, ip net.IP) error {
	mac := link.Attrs().HardwareAddr
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	to := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: 6}
	copy(to.Addr[:], broadcast)
	for _, op := range []byte{1, 2} {
		target := broadcast
		if op == 2 {
			target = mac
		}
		frame := make([]byte, 0, 42)
		frame = append(frame, broadcast...)
		frame = append(frame, mac...)
		frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, op)
		frame = append(frame, mac...)
		frame = append(frame, ip.To4()...)
		frame = append(frame, target...)
		frame = append(frame, ip.To4()...)
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			return fmt.Errorf("announce %s: %w", ip, err)
		}
	}
	return nil
}
