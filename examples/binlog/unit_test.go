package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParserAsAUnit(t *testing.T) {
	h := newHost(t)
	h.want(exitUsage, 0, "", "run", "-own", "127.0.0.11")

	systemd, err := net.ListenPacket("unixgram", filepath.Join(h.dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	unit := h.command(3, "", "run")
	unit.Env = append(unit.Env, "NOTIFY_SOCKET="+systemd.LocalAddr().String())
	if err := unit.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = unit.Process.Kill()
			_ = unit.Wait()
		}
	}()
	buf := make([]byte, 64)
	_ = systemd.SetDeadline(time.Now().Add(20 * time.Second))
	n, _, err := systemd.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Fatalf("systemd is told %q, %v", buf[:n], err)
	}
	if a, err := (parser{port: h.port}).ask("127.0.0.11", 5*time.Second); err != nil || a.Term != 3 || a.PID != unit.Process.Pid {
		t.Errorf("ready, and %+v answers, %v", a, err)
	}
	h.want(exitUnchanged, 4, "", "run") // a second one, by hand
	for h.lines() == 0 {
		time.Sleep(interval)
	}

	if err := unit.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = unit.Wait()
	ended = true

	// What has been parsed for a higher term is not touched for a lower one.
	before := h.lines()
	h.want(exitStale, 2, "", "run")
	if after := h.lines(); after != before {
		t.Errorf("a parser of an older term wrote %d lines", after-before)
	}
}

// lines counts the positions that were parsed.
func (h host) lines() int {
	text, _ := os.ReadFile(h.positions())
	return strings.Count(string(text), "\n")
}

// What the files say of each other has to fit.
func TestUnitFits(t *testing.T) {
	unit, err := os.ReadFile("binlog-parser.service")
	if err != nil {
		t.Fatal(err)
	}
	service, err := os.ReadFile("services.d/binlog.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"EnvironmentFile=/run/deputy/binlog/allow-binlog-parser.service\n", "Type=notify\n", "-service 192.0.2.10\n"} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("binlog-parser.service lacks %q", want)
		}
	}
	if strings.Contains(string(unit), "[Install]\n") {
		t.Error("binlog-parser.service can be enabled: the boot would start it on a standby")
	}
	for _, want := range []string{`units = ["binlog-parser.service"]`, `address = "192.0.2.10/32"`} {
		if !strings.Contains(string(service), want) {
			t.Errorf("services.d/binlog.toml lacks %q", want)
		}
	}
}
