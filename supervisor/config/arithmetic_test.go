package config

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestArithmetic(t *testing.T) {
	s, err := LoadService("testdata/design/orders-db.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ttl := range []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 5 * time.Minute} {
		s.TTL = ttl
		var b strings.Builder
		if err := Arithmetic(s).Write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/arithmetic/"+short(ttl)+".txt", b.String())
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("ttl %s: a line has %d columns: %s", ttl, n, line)
			}
		}
	}
}

// What the table says is held against what follows for any ttl.
func TestLayers(t *testing.T) {
	for ttl := supervisor.MinTTL; ttl <= 20*time.Second; ttl += 7 * time.Millisecond {
		timing := supervisor.NewTiming(ttl)
		for _, l := range layers(timing) {
			if l.Left != ttl-l.By {
				t.Fatalf("ttl %s: %s: left %s after %s", ttl, l.Layer, l.Left, l.By)
			}
			if l.Holds && l.Key != "etcd" && l.By > timing.Until {
				t.Fatalf("ttl %s: %s is said to hold and acts at %s, after %s", ttl, l.Layer, l.By, timing.Until)
			}
		}
	}
	for name, holds := range map[string]func(supervisor.Timing) bool{"watchdog": watchdogHolds, "gate": gateHolds} {
		least := smallest(holds)
		for ttl := supervisor.MinTTL; ttl <= supervisor.MaxTTL; ttl += 10 * time.Millisecond {
			if got := holds(supervisor.NewTiming(ttl)); got != (ttl >= least) {
				t.Fatalf("%s: holds at %s is %v, and the smallest ttl is said to be %s", name, ttl, got, least)
			}
		}
	}
}

// Known from the safety page: a frozen process is dead by about s + 1.4 s at
// T = 3 s, and by s + 0.65 s at T = 1 s.
func TestKilled(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{3 * time.Second: 1400 * time.Millisecond, time.Second: 650 * time.Millisecond} {
		if got := killed(supervisor.NewTiming(ttl)); got > want || got < want-100*time.Millisecond {
			t.Errorf("ttl %s: killed by s + %s, want about %s", ttl, got, want)
		}
	}
}

func TestTableAsJSON(t *testing.T) {
	table := Arithmetic(parse(t, "ttl = '3s'\n"+small))
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		TTL   int64 `json:"ttl_ns"`
		Lines []struct {
			Key  string `json:"key"`
			Time int64  `json:"time_ns"`
		} `json:"lines"`
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back.TTL != 3e9 || back.Lines[1].Key != "lost" || back.Lines[1].Time != 225e7 {
		t.Errorf("got %+v", back)
	}
}

// Of exec it is known which parts promote.
func TestLongest(t *testing.T) {
	promote, demote := longest(parse(t, "[[plugin]]\nuse = 'exec'\nconfig.check = ['/bin/true']\n"+small+"promote = { timeout = '5s', retries = 1 }\ndemote = { timeout = '2s', retries = 0 }\n"))
	if promote != 10*time.Second || demote != 2*time.Second {
		t.Errorf("got %s and %s, want 10s and 2s", promote, demote)
	}
}
