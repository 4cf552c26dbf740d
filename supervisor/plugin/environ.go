package plugin

import (
	"os"
	"strconv"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// inherited are the only variables of the supervisor's own that reach a
// plugin.
var inherited = [...]string{"PATH", "LANG", "HOME", "TMPDIR", "TZ"}

// A setting is one variable of the environment.
type setting struct{ name, value string }

// environ returns the environment of a process: what is inherited, and the
// settings with DEPUTY_ before their names.
func environ(settings ...setting) []string {
	var env []string
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, s := range settings {
		env = append(env, "DEPUTY_"+s.name+"="+s.value)
	}
	return env
}

// actEnviron returns the environment of an act. Every variable is set; one
// with nothing to tell is empty, or zero if it is a number.
func actEnviron(t sdk.Transition, timeout time.Duration) []string {
	return environ(
		setting{"SERVICE", t.Service},
		setting{"NODE", t.Node},
		setting{"ACTION", string(t.Action)},
		setting{"TERM", strconv.FormatUint(uint64(t.Term), 10)},
		setting{"REASON", string(t.Reason)},
		setting{"MODE", string(t.Mode)},
		setting{"TIMEOUT_MS", millis(timeout)},
		setting{"LEASE_UNTIL_MS", millis(time.Duration(t.LeaseUntil))},
		setting{"PREVIOUS_NODE", t.Previous.Node},
		setting{"PRIMARY_NODE", t.Primary.Node},
		setting{"PRIMARY_ADDRESS", t.Primary.Address},
		setting{"ATTEMPT", strconv.Itoa(t.Attempt)},
		setting{"STATE_DIR", t.StateDir},
	)
}

// checkEnviron returns the environment of a check: what a check knows of it,
// and the role that it is for.
func checkEnviron(h Host, part string, role sdk.Role, term sdk.Term, timeout time.Duration) []string {
	return environ(
		setting{"SERVICE", h.Service},
		setting{"NODE", h.Node},
		setting{"ACTION", "check"},
		setting{"ROLE", string(role)},
		setting{"TERM", strconv.FormatUint(uint64(term), 10)},
		setting{"TIMEOUT_MS", millis(timeout)},
		setting{"STATE_DIR", h.stateDir(part)},
	)
}

// millis rounds down: nothing may count on more.
func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
