package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/deputy-ha/deputy/supervisor"
)

// Whatever is in a definition: reading it never panics, each mistake has a
// place inside the file, and what is valid keeps every rule when it is held
// against them one by one.
func FuzzLoadService(f *testing.F) {
	for _, pattern := range []string{"testdata/mistakes/*.toml", "testdata/design/*.toml", "testdata/node/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, src string) {
		s, err := parseService("orders-db.toml", src, []string{"mysql", "vip", "guard", "http", "tcp"})
		if err != nil {
			checkPlaces(t, src, err)
		} else {
			checkRules(t, s)
		}
		checkScan(t, src)
		doc, wrong := parseDocument("deputy.toml", src)
		if doc == nil {
			return
		}
		n := readNode(top(doc, &wrong), "db1")
		if err := wrong.err(); err != nil {
			checkPlaces(t, src, err)
		} else if len(n.Etcd.Endpoints) == 0 || n.Name == "" || n.Etcd.Prefix == "" {
			t.Errorf("a valid node lacks something: %+v", n)
		}
	})
}

// checkPlaces holds every mistake's place against the text.
func checkPlaces(t *testing.T, src string, err error) {
	t.Helper()
	var wrong Mistakes
	if !errors.As(err, &wrong) || len(wrong) == 0 {
		t.Fatalf("got %v, want mistakes", err)
	}
	lines := strings.Split(strings.TrimPrefix(src, "\uFEFF"), "\n")
	for _, m := range wrong {
		if m.Line < 1 || m.Line > len(lines) {
			t.Fatalf("line %d of %d: %s", m.Line, len(lines), m)
		}
		if n := utf8.RuneCountInString(lines[m.Line-1]); m.Column < 1 || m.Column > n+1 {
			t.Fatalf("column %d of %d: %s", m.Column, n, m)
		}
		if m.Text == "" {
			t.Fatalf("a mistake says nothing: %+v", m)
		}
	}
	if !slices.IsSortedFunc(wrong, func(a, b Mistake) int { return a.Line - b.Line }) {
		t.Fatalf("mistakes are not in order:\n%s", wrong)
	}
}

// checkRules writes the rules of a service down once more, plainly.
func checkRules(t *testing.T, s supervisor.Service) {
	t.Helper()
	rule := func(ok bool, what string) {
		if !ok {
			t.Errorf("a valid service breaks a rule: %s: %+v", what, s)
		}
	}
	within := func(d, least, most time.Duration) bool { return d >= least && d <= most }
	rule(s.Name == "orders-db" && s.Hash != "" && s.User != "", "it has a name, a hash and a user")
	rule(within(s.TTL, supervisor.MinTTL, supervisor.MaxTTL), "ttl")
	rule(s.Priority >= 0, "priority")
	rule(s.OnDemoteFailure == supervisor.Block || s.OnDemoteFailure == supervisor.Reboot, "on_demote_failure")
	rule(s.OnUnclean == supervisor.UncleanWait || s.OnUnclean == supervisor.UncleanFence, "on_unclean")
	rule(s.OnBehind == supervisor.BehindRefuse || s.OnBehind == supervisor.BehindPromote, "on_behind")
	rule(len(s.Parts) > 0, "it has parts")
	names := map[string]bool{}
	for _, p := range s.Parts {
		rule(p.Use != "" && p.Name != "" && !names[p.Name], "names are unique")
		names[p.Name] = true
		rule(p.Promote.Timeout > 0 && p.Promote.Retries >= 0 && p.Demote.Timeout > 0 && p.Demote.Retries >= 0 && p.Fence.Timeout > 0 && p.Fence.Retries >= 0, "acts are bounded")
		c := p.Check
		rule(c.Timeout > 0 && c.Interval >= c.Timeout && c.Fall >= 1 && c.Rise >= 1 && c.StartGrace >= 0, "checks do not overlap")
		rule(time.Duration(c.Fall)*c.Interval <= maxNotice && time.Duration(c.Rise)*c.Interval <= maxNotice, "an unfit part is noticed")
		rule(slices.Contains([]supervisor.On{"", supervisor.OnPrimary, supervisor.OnStandby, supervisor.OnBoth}, c.On), "on")
		if p.Use == "exec" {
			rule(p.Config["promote"] == nil || p.Config["demote"] != nil, "what promotes demotes")
			for _, key := range []string{"promote", "demote", "check", "follow", "fence"} {
				if argv, ok := p.Config[key].([]any); ok {
					program, isText := argv[0].(string)
					rule(isText && strings.HasPrefix(program, "/"), "programs are absolute")
				}
			}
		}
	}
	if s.Hash != hash(s) {
		t.Error("the hash changes")
	}
	var b strings.Builder
	if err := Arithmetic(s).Write(&b); err != nil {
		t.Error(err)
	}
}

// checkScan finds a position for every value of a document that is TOML, and
// does not mind one that is not.
func checkScan(t *testing.T, src string) {
	t.Helper()
	root := scan("f", src)
	if _, empty := emptyKey(root); empty {
		return
	}
	var plain map[string]any
	if strings.HasPrefix(src, "\uFEFF") || strings.HasPrefix(src, "\xff\xfe") || strings.HasPrefix(src, "\xfe\xff") {
		return // the library drops what begins these
	}
	if _, err := toml.Decode(src, &plain); err != nil {
		return
	}
	if lost := unplaced(plain, root, ""); lost != nil {
		t.Errorf("values without a position: %q in\n%s", lost, src)
	}
}
