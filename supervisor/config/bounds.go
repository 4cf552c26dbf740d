package config

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// CheckForced holds a service's forced budget, the 0.15 T between the loss of
// its lease and the call for the fences outside, against what its plugins say
// their forced demotion needs at most. bounds are by name of the part; one
// that says nothing is left out or zero. All parts demote at once, so the
// slowest counts. The error is [Mistakes] and names the smallest ttl that
// works.
func CheckForced(s supervisor.Service, bounds map[string]time.Duration) error {
	timing := supervisor.NewTiming(s.TTL)
	var slow []string
	var most time.Duration
	for _, name := range slices.Sorted(maps.Keys(bounds)) {
		if bounds[name] > timing.Forced() {
			slow = append(slow, fmt.Sprintf("%s (%s)", name, short(bounds[name])))
			most = max(most, bounds[name])
		}
	}
	if slow == nil {
		return nil
	}
	cure := fmt.Sprintf("no ttl up to %s is enough, so this cannot be used here", short(supervisor.MaxTTL))
	if ttl, ok := smallestTTL(most); ok {
		cure = fmt.Sprintf("the smallest ttl that works is %q", short(ttl))
	}
	var wrong Mistakes
	wrong.add(locate(s.File, "ttl"), "ttl", "%s leaves %s for a forced demotion, and %s may take longer; %s",
		short(s.TTL), short(timing.Forced()), supervisor.Enumerate(slow), cure)
	return wrong.err()
}

// noFence is what is wrong with fences that nobody can carry out.
const noFence = `is "fence", and no plugin of this service can fence: after an unclean loss nobody would lead; ` +
	`add one that can, such as use = "fence" or exec with a program for fence, or write "wait"`

// CheckFence holds on_unclean against what a service's plugins say that they can
// do: so many of them can fence. The error is [Mistakes].
func CheckFence(s supervisor.Service, fencers int) error {
	if s.OnUnclean != supervisor.UncleanFence || fencers > 0 {
		return nil
	}
	var wrong Mistakes
	wrong.add(locate(s.File, "on_unclean"), "on_unclean", noFence)
	return wrong.err()
}

// smallestTTL returns the smallest ttl, in whole milliseconds, whose forced
// budget is enough.
func smallestTTL(forced time.Duration) (time.Duration, bool) {
	if forced > supervisor.NewTiming(supervisor.MaxTTL).Forced() {
		return 0, false
	}
	ttl := max(forced*100/15, supervisor.MinTTL).Truncate(time.Millisecond)
	for supervisor.NewTiming(ttl).Forced() < forced {
		ttl += time.Millisecond
	}
	return ttl, true
}

// locate finds a top-level key in a file as it is now, else the file alone.
func locate(file, key string) place {
	src, err := readFile(file)
	if err != nil {
		return place{file: file}
	}
	doc, wrong := parseDocument(file, src)
	if len(wrong) > 0 {
		return place{file: file}
	}
	return top(doc, &Mistakes{}).where(key)
}
