package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestCheckPolicy(t *testing.T) {
	s := parse(t, "[[plugin]]\nuse = 'http'\ncheck = { interval = '2s', fast_interval = '200ms', jitter = 5, timeout = '1s', fall = 4, rise = 3, on = 'both', severity = 'eligibility', start_grace = '1m' }\n")
	want := supervisor.CheckPolicy{
		Interval: 2 * time.Second, FastInterval: 200 * time.Millisecond, Jitter: 5, Timeout: time.Second,
		Fall: 4, Rise: 3, On: supervisor.OnBoth, Severity: supervisor.Eligibility, StartGrace: time.Minute,
	}
	if diff := cmp.Diff(want, s.Parts[0].Check); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What is said of a check is the longest that it can take.
func TestArithmeticOfChecks(t *testing.T) {
	s := parse(t, `
[[plugin]]
use   = "http"
check = { interval = "2s", fast_interval = "200ms", jitter = 10, timeout = "1s", fall = 3, rise = 2 }
[[plugin]]
use   = "tcp"
check = { interval = "2s", timeout = "1s", fall = 3, rise = 1, severity = "warning" }
[[plugin]]
use    = "exec"
config = { promote = ["/bin/true"], demote = ["/bin/true"] }
[[plugin]]
use    = "exec"
name   = "probe"
config = { check = ["/bin/true"] }
check  = { severity = "eligibility" }
`)
	table := Arithmetic(s)
	want := []Check{
		{"http", 2 * time.Second, 2640*time.Millisecond + 3*time.Second, 2420*time.Millisecond + 2*time.Second, "", supervisor.Critical},
		{"tcp", 2 * time.Second, 9 * time.Second, 3 * time.Second, "", supervisor.Warning},
		{"probe", time.Second, 4500 * time.Millisecond, 3 * time.Second, "", supervisor.Eligibility},
	}
	if diff := cmp.Diff(want, table.Checks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var b strings.Builder
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"  check              every     unfit after fit after   at worst; what a failure costs\n",
		"  http               2s        5.64s       4.42s       the role; promotion, if it only checks\n",
		"  tcp                2s        9s          3s          nothing, it is told\n",
		"  probe              1s        4.5s        3s          promotion\n",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("lacks %q:\n%s", line, b.String())
		}
	}
}
