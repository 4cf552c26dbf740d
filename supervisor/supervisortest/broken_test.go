package supervisortest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The ways in which an elector is broken on purpose, the case that finds each,
// and what it must say.
var breaks = map[string]struct {
	broken
	on, want string
}{
	"take compares nothing":            {broken{blind: true}, "stale", "want ErrRefused"},
	"holder believes in too much":      {broken{late: time.Second}, "holder_killed", "two at one time"},
	"pulse is taken for dead too soon": {broken{hasty: true}, "holder_killed", "two at one time"},
	"deleted pulse is taken for dead":  {broken{rash: true}, "pulse_deleted_under_a_holder", "two at one time"},
	"adoption leaves the term behind":  {broken{stray: true}, "primary_deleted_under_an_adopter", "two at one time"},
	"terms do not grow":                {broken{terms: true}, "clean_resign", "the term did not grow"},
}

// TestBrokenElector is run by TestSuiteFails in a process of its own.
func TestBrokenElector(t *testing.T) {
	b, ok := breaks[os.Getenv("DEPUTY_TEST_BROKEN")]
	if !ok {
		t.Skip("run by TestSuiteFails")
	}
	h := simulated{broken: b.broken}
	TestElector(t, h)
}

// A suite that cannot fail proves nothing.
func TestSuiteFails(t *testing.T) {
	for name, b := range breaks {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestBrokenElector$/"+b.on, "-test.timeout=60s")
			cmd.Env = append(os.Environ(), "DEPUTY_TEST_BROKEN="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), b.want) {
				t.Errorf("the suite is to say %q; %v\n%s", b.want, err, out)
			}
		})
	}
}
