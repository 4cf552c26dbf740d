package main

import (
	"bytes"
	"net/netip"
	"testing"
)

// Field by field as RFC 791 and RFC 768 have them; the kernel drops a packet
// with another checksum.
func TestPacket(t *testing.T) {
	got := packet(netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.10:7306"), []byte("42"))
	want := []byte{
		0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0xb6, 0xc3, 192, 0, 2, 1, 192, 0, 2, 10,
		0x9c, 0x40, 0x1c, 0x8a, 0, 10, 0, 0, '4', '2',
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if sum := checksum(got[:20]); sum != 0 {
		t.Errorf("got a checksum over the header and its own of %#x, want 0", sum)
	}
}
