package prometheus

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promtool runs Debian's, of the package prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no promtool here: apt-get install prometheus")
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", "deputy.rules.yaml")
	promtool(t, "test", "rules", "deputy.rules.test.yaml")
}

// TestEachRuleIsTried wants each alert to be expected once, and to be expected
// not to come once before.
func TestEachRuleIsTried(t *testing.T) {
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	names := func(text, pattern string) (all []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	rules, tests := read("deputy.rules.yaml"), read("deputy.rules.test.yaml")
	alerts := names(rules, `- alert: (\w+)`)
	comes := names(tests, `alertname: (\w+)\n`)
	stays := names(tests, `alertname: (\w+), eval_time: \w+, exp_alerts: \[\]`)
	if len(alerts) < 10 {
		t.Fatalf("the rules have alerts %v", alerts)
	}
	for _, a := range alerts {
		if !slices.Contains(comes, a) || !slices.Contains(stays, a) {
			t.Errorf("%s is not tried both ways", a)
		}
		if !strings.Contains(read("README.md"), "| "+a+" |") {
			t.Errorf("README.md does not tell of %s", a)
		}
	}
}
