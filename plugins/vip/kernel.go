package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A kernel knows the host's addresses. Its methods may be called at the same
// time, and may take seconds.
type kernel interface {
	// list returns the host's addresses that are one of those given, whatever
	// their interface and prefix.
	list(addrs []netip.Addr) ([]entry, error)
	// put adds an address, or gives the one that is there these lifetimes and
	// flags.
	put(e entry) error
	// remove removes an address. It may be gone already.
	remove(e entry) error
	// link returns the network interface of a name.
	link(name string) (link, error)
	// hear tells of changes of any interface and address until ctx ends, and at
	// its beginning that some may have been missed. An error says why it ended
	// before.
	hear(ctx context.Context, tell func(change)) error
	close() error
}

// A link is a network interface.
type link struct {
	name  string
	index int
	flags uint32
	mac   net.HardwareAddr
	part  string // what it is a port of, such as bridge or bond; usually nothing
}

// Rtnetlink is the kernel over one lasting connection.
type rtnetlink struct {
	mu   sync.Mutex
	conn *netlink.Conn
}

// An entry is an address that the host has.
type entry struct {
	addr      netip.Addr
	peer      netip.Addr // of a point-to-point interface; else addr
	bits      int
	index     int // of its interface
	flags     uint32
	label     string // IPv4
	valid     uint32 // seconds; forever is for ever
	preferred uint32
	origin    byte // who has added it; 0 when nobody has said
}

const (
	forever = ^uint32(0)
	// origin marks the addresses that this plugin has added (IFA_PROTO, since
	// Linux 5.18; older kernels ignore it). Those up to 3 are the kernel's.
	origin = 0xde
	// ifaProto is IFA_PROTO of linux/if_addr.h.
	ifaProto = 11
	// answerTime is how long the kernel may take for an answer, which it has
	// ready when the request returns.
	answerTime = 2 * time.Second
)

// prefix is the address as people write it.
func (e entry) prefix() netip.Prefix { return netip.PrefixFrom(e.addr, e.bits) }

// usable tells whether the kernel answers for the address.
func (e entry) usable() bool { return e.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 }

// marked tells whether the address looks like one of this plugin's. Before
// Linux 5.18 there is no mark but this combination, which is hardly anybody
// else's.
func (e entry) marked() bool {
	return e.origin == origin || e.origin == 0 && e.flags&unix.IFA_F_NOPREFIXROUTE != 0 && e.flags&unix.IFA_F_DEPRECATED != 0
}

func (e entry) String() string {
	name := fmt.Sprintf("interface %d", e.index)
	if ifi, err := net.InterfaceByIndex(e.index); err == nil {
		name = ifi.Name
	}
	return fmt.Sprintf("%s on %s", e.prefix(), name)
}

func (k *rtnetlink) list(addrs []netip.Addr) ([]entry, error) {
	var all []entry
	for attempt := 1; ; attempt++ {
		replies, err := k.execute(unix.RTM_GETADDR, netlink.Dump, make([]byte, unix.SizeofIfAddrmsg))
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		all = all[:0]
		torn := false // something changed meanwhile
		for _, m := range replies {
			torn = torn || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			e, err := parseEntry(m.Data)
			if err != nil {
				return nil, fmt.Errorf("list addresses: %w", err)
			}
			if slices.Contains(addrs, e.addr) {
				all = append(all, e)
			}
		}
		if !torn {
			return all, nil
		}
		if attempt == 10 {
			return nil, errors.New("list addresses: they change all the time")
		}
	}
}

func parseEntry(b []byte) (entry, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return entry{}, errors.New("short answer from the kernel")
	}
	e := entry{bits: int(b[1]), flags: uint32(b[2]), index: int(binary.NativeEndian.Uint32(b[4:])), valid: forever, preferred: forever}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return e, err
	}
	var local netip.Addr
	for ad.Next() {
		switch ad.Type() {
		case unix.IFA_ADDRESS:
			e.addr, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_LABEL:
			e.label = ad.String()
		case unix.IFA_FLAGS:
			e.flags = ad.Uint32()
		case ifaProto:
			e.origin = ad.Uint8()
		case unix.IFA_CACHEINFO:
			if ci := ad.Bytes(); len(ci) >= 8 {
				e.preferred, e.valid = binary.NativeEndian.Uint32(ci), binary.NativeEndian.Uint32(ci[4:])
			}
		}
	}
	e.peer = e.addr
	if local.IsValid() { // IPv6 has it only with a peer
		e.addr = local
	}
	return e, ad.Err()
}

func (k *rtnetlink) put(e entry) error {
	b, err := e.request(true)
	if err == nil {
		_, err = k.execute(unix.RTM_NEWADDR, netlink.Acknowledge|netlink.Create|netlink.Replace, b)
	}
	if err != nil {
		return fmt.Errorf("add address %s: %w", e, explain(err, e))
	}
	return nil
}

func (k *rtnetlink) remove(e entry) error {
	b, err := e.request(false)
	if err == nil {
		_, err = k.execute(unix.RTM_DELADDR, netlink.Acknowledge, b)
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete address %s: %w", e, explain(err, e))
	}
	return nil
}

// link finds an interface by its name or by one of its alternative names.
func (k *rtnetlink) link(name string) (link, error) {
	ae := netlink.NewAttributeEncoder()
	if len(name) < unix.IFNAMSIZ {
		ae.String(unix.IFLA_IFNAME, name)
	} else {
		ae.String(unix.IFLA_ALT_IFNAME, name)
	}
	attrs, err := ae.Encode()
	if err != nil {
		return link{}, err
	}
	replies, err := k.execute(unix.RTM_GETLINK, 0, append(make([]byte, unix.SizeofIfInfomsg), attrs...))
	switch {
	case errors.Is(err, unix.ENODEV):
		return link{}, fmt.Errorf("interface %s does not exist", name)
	case err != nil:
		return link{}, fmt.Errorf("look at interface %s: %w", name, err)
	case len(replies) != 1:
		return link{}, fmt.Errorf("look at interface %s: no answer from the kernel", name)
	}
	l, _, err := parseLink(replies[0].Data)
	if err != nil {
		return l, fmt.Errorf("look at interface %s: %w", name, err)
	}
	return l, nil
}

// parseLink reads what the kernel tells of an interface, and the event that it
// tells it for (IFLA_EVENT), if any.
func parseLink(b []byte) (l link, event uint32, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, 0, errors.New("short answer from the kernel")
	}
	l = link{index: int(binary.NativeEndian.Uint32(b[4:])), flags: binary.NativeEndian.Uint32(b[8:])}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, 0, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_ADDRESS:
			l.mac = ad.Bytes()
		case unix.IFLA_EVENT:
			event = ad.Uint32()
		case unix.IFLA_LINKINFO:
			ad.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() == unix.IFLA_INFO_SLAVE_KIND {
						l.part = info.String()
					}
				}
				return info.Err()
			})
		}
	}
	return l, event, ad.Err()
}

// up reports whether the interface is up and has a carrier. Of its flags the
// second is quick, and the third knows of 802.1X.
func (l link) up() bool {
	const all = unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return l.flags&all == all
}

// announces reports whether neighbours there learn by announcements.
func (l link) announces() bool {
	return l.flags&unix.IFF_BROADCAST != 0 && l.flags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) == 0 && len(l.mac) == 6
}

func (l link) netInterface() *net.Interface {
	return &net.Interface{Name: l.name, Index: l.index, HardwareAddr: l.mac}
}

func (e entry) request(add bool) ([]byte, error) {
	family := byte(unix.AF_INET)
	if e.addr.Is6() {
		family = unix.AF_INET6
	}
	b := []byte{family, byte(e.bits), byte(e.flags), unix.RT_SCOPE_UNIVERSE}
	b = binary.NativeEndian.AppendUint32(b, uint32(e.index))
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.IFA_LOCAL, e.addr.AsSlice())
	ae.Bytes(unix.IFA_ADDRESS, e.peer.AsSlice())
	if add {
		ae.Uint32(unix.IFA_FLAGS, e.flags)
		ae.Uint8(ifaProto, e.origin)
		if e.label != "" {
			ae.String(unix.IFA_LABEL, e.label)
		}
		ci := binary.NativeEndian.AppendUint32(nil, e.preferred)
		ci = binary.NativeEndian.AppendUint32(ci, e.valid)
		ae.Bytes(unix.IFA_CACHEINFO, append(ci, make([]byte, 8)...))
	}
	attrs, err := ae.Encode()
	return append(b, attrs...), err
}

// execute sends one request. After an error the connection is opened anew:
// replies may still be waiting in the old one.
func (k *rtnetlink) execute(kind uint16, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn == nil {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return nil, err
		}
		k.conn = conn
	}
	err := k.conn.SetDeadline(time.Now().Add(answerTime))
	if err != nil {
		return nil, err
	}
	replies, err := k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   data,
	})
	if err != nil {
		k.conn.Close()
		k.conn = nil
	}
	return replies, err
}

func (k *rtnetlink) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn == nil {
		return nil
	}
	err := k.conn.Close()
	k.conn = nil
	return err
}

// explain adds the cure to errors that have a known one.
func explain(err error, e entry) error {
	name := ""
	if ifi, err := net.InterfaceByIndex(e.index); err == nil {
		name = ifi.Name
	}
	switch {
	case e.addr.Is6() && name != "" && disabled(name):
		return fmt.Errorf("%w: IPv6 is disabled on %s: sysctl net.ipv6.conf.%s.disable_ipv6=0", err, name, name)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: addresses need CAP_NET_ADMIN: %s", err, cure("CAP_NET_ADMIN"))
	}
	return err
}

// disabled reports whether IPv6 is switched off on an interface.
func disabled(name string) bool {
	said, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6")
	return errors.Is(err, os.ErrNotExist) || len(said) > 0 && said[0] == '1'
}

func cure(capability string) string {
	return `give the service user = "root", or its unit AmbientCapabilities=` + capability
}
