package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"
)

// A client drops what comes from another address than the one it asked.
func TestResponderAnswersWhereItWasAsked(t *testing.T) {
	c, err := listenAsNode("0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- respond(c, "n1") }()
	t.Cleanup(func() {
		c.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for i, host := range []string{"127.0.0.1", "127.0.0.11", "127.3.2.1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
		client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(10 * time.Second))
		for _, question := range []string{"nonsense", strconv.Itoa(i)} {
			if _, err := client.Write([]byte(question)); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 512)
		n, err := client.Read(buf)
		if err != nil {
			t.Fatalf("ask at %s: %v", host, err)
		}
		var got reply
		if err := json.Unmarshal(buf[:n], &got); err != nil {
			t.Fatal(err)
		}
		if want := (reply{Seq: uint64(i), Node: "n1", PID: os.Getpid()}); got != want {
			t.Errorf("ask at %s: got %+v, want %+v", host, got, want)
		}
	}
}
