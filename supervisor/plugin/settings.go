package plugin

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// capabilities are those that a program can have, each under a key of its own.
var capabilities = [...]sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanCheck, sdk.CanFollow, sdk.CanFence}

// The keys of the other settings.
const (
	forcedBound = "forced_bound"
	asUser      = "user"
	onUnknown   = "unknown"
)

// settings are the config of an exec part.
type settings struct {
	argv        map[sdk.Capability][]string // not empty, with an absolute path first
	user        string                      // whom they run as; empty when not given
	forcedBound time.Duration               // zero when not given
	lenient     bool                        // a check's UNKNOWN is a warning
}

// parse returns the settings of a config table, or every mistake in it.
func parse(config map[string]any) (settings, error) {
	s := settings{argv: map[sdk.Capability][]string{}}
	var mistakes []error
	for _, key := range slices.Sorted(maps.Keys(config)) {
		var err error
		switch c := sdk.Capability(key); {
		case slices.Contains(capabilities[:], c):
			s.argv[c], err = parseArgv(config[key])
		case key == forcedBound:
			s.forcedBound, err = parseBound(config[key])
		case key == asUser:
			var ok bool
			if s.user, ok = config[key].(string); !ok || s.user == "" {
				err = fmt.Errorf("%v is not the name of a user", config[key])
			}
		case key == onUnknown:
			if s.lenient = config[key] == "warning"; !s.lenient && config[key] != "unfit" {
				err = fmt.Errorf("%v is neither unfit nor warning", config[key])
			}
		default:
			err = fmt.Errorf("unknown key; known: %s, %s, %s, %s", programs(), asUser, forcedBound, onUnknown)
		}
		if err != nil {
			mistakes = append(mistakes, &sdk.KeyError{Key: key, Err: err})
		}
	}
	switch has := func(c sdk.Capability) bool { _, ok := config[string(c)]; return ok }; {
	case !slices.ContainsFunc(capabilities[:], has):
		mistakes = append(mistakes, fmt.Errorf("nothing to run: give some of %s", programs()))
	case has(sdk.CanPromote) && !has(sdk.CanDemote):
		mistakes = append(mistakes, &sdk.KeyError{Key: string(sdk.CanPromote), Err: errors.New("needs a demote beside it: what is promoted must be able to leave the role")})
	}
	return s, errors.Join(mistakes...)
}

func parseArgv(value any) ([]string, error) {
	const want = `want an array of strings, the program's absolute path first: no shell is involved`
	var argv []string
	switch list := value.(type) {
	case []string:
		argv = slices.Clone(list)
	case []any:
		for _, v := range list {
			arg, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%v is not a string; %s", v, want)
			}
			argv = append(argv, arg)
		}
	default:
		return nil, fmt.Errorf("%v is not an array; %s", value, want)
	}
	switch {
	case len(argv) == 0:
		return nil, fmt.Errorf("is empty; %s", want)
	case !filepath.IsAbs(argv[0]):
		return nil, fmt.Errorf("%q is not an absolute path; %s", argv[0], want)
	case slices.ContainsFunc(argv, func(arg string) bool { return strings.ContainsRune(arg, 0) }):
		return nil, errors.New("an argument cannot hold a zero byte")
	}
	return argv, nil
}

func parseBound(value any) (time.Duration, error) {
	text, ok := value.(string)
	if !ok {
		return 0, fmt.Errorf(`%v is not a duration such as "200ms"`, value)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf(`%q is not a duration such as "200ms"`, text)
	}
	return d, nil
}

// programs lists the keys that name a program.
func programs() string {
	var keys []string
	for _, c := range capabilities {
		keys = append(keys, string(c))
	}
	return strings.Join(keys, ", ")
}
