package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Units       []unitName    `toml:"units" doc:"the units that run on the primary, such as [\"parser.service\"]: started in this order, stopped in reverse" required:"true"`
	Settle      time.Duration `toml:"settle" doc:"how long a unit that does not tell by itself when it is ready (Type=simple, exec or idle) has to stay active before it counts as started" default:"300ms" min:"0s" max:"1m"`
	StopTimeout time.Duration `toml:"stop_timeout" doc:"how long a planned demotion lets the units stop by themselves before it kills them; 0s: three quarters of its own timeout" default:"0s" min:"0s" max:"1h"`
	Forced      string        `toml:"forced" doc:"what a forced demotion does: kill the units at once, or stop them and kill after half of its time" default:"kill" enum:"kill|stop"`
	Guard       bool          `toml:"guard" doc:"nothing but deputy starts the units, by the drop-in that deputy enable writes; without it only units are taken that nothing else is known to start" default:"true"`
}

// maxUnits is how many units one part may have. They stop at once, and
// dbus-daemon lets a connection wait for 128 answers at a time
// (max_replies_per_connection).
const maxUnits = 32

// A unitName is read from a text.
type unitName string

// service is what names of units may be, see systemd.unit(5).
var service = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service$`)

// UnmarshalText reads the name of a service unit.
func (u *unitName) UnmarshalText(text []byte) error {
	s := string(text)
	base, _, _ := strings.Cut(strings.TrimSuffix(s, ".service"), "@")
	switch {
	case !strings.HasSuffix(s, ".service"):
		return errors.New("must be the whole name of a service unit, such as parser.service; for timers, sockets and others see deputy-targets(7)")
	case strings.HasSuffix(s, "@.service"):
		return errors.New("is a template: write it with its instance, such as parser@orders.service")
	case !service.MatchString(s) || len(s) > 255:
		return errors.New("is no name of a unit")
	case base == "deputy" || strings.HasPrefix(base, "deputy-"):
		return errors.New("is a unit of deputy itself")
	}
	*u = unitName(s)
	return nil
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	if len(s.Units) > maxUnits {
		wrong = append(wrong, &sdk.KeyError{Key: "units", Err: fmt.Errorf("are %d, and %d is the most", len(s.Units), maxUnits)})
	}
	seen := map[unitName]bool{}
	for i, u := range s.Units {
		if seen[u] {
			wrong = append(wrong, &sdk.KeyError{Key: fmt.Sprintf("units[%d]", i), Err: fmt.Errorf("%s is named twice", u)})
		}
		seen[u] = true
	}
	return errors.Join(wrong...)
}

// names are the units, in the order in which they start.
func (s *settings) names() []string {
	var all []string
	for _, u := range s.Units {
		all = append(all, string(u))
	}
	return all
}
