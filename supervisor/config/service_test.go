package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

func parse(t *testing.T, src string) supervisor.Service {
	t.Helper()
	s, err := parseService("orders-db.toml", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const small = "[[plugin]]\nuse = 'vip'\nconfig = { address = '192.0.2.10/32', weight = 1 }\n"

func TestHashIsOfTheMeaning(t *testing.T) {
	want := parse(t, small).Hash
	for name, src := range map[string]string{
		"defaults spelt out": "ttl = '4000ms'\npriority = 100\nuser = 'deputy'\non_behind = 'refuse'\n" + small +
			"name = 'vip'\npromote = { retries = 2, timeout = '0.5m' }\ncheck = { fall = 3 }\n",
		"order of keys, comments and spelling": "# a comment\n[[plugin]]\nconfig.weight = 0x1\nconfig.address = \"\"\"192.0.2.10/32\"\"\"\n'use' = \"vip\"",
		"what differs between nodes":           "priority = 7\ndescription = 'the second node'\n" + small,
	} {
		if got := parse(t, src).Hash; got != want {
			t.Errorf("%s: the hash differs", name)
		}
	}
	for name, src := range map[string]string{
		"ttl":      "ttl = '5s'\n" + small,
		"preempt":  "preempt = true\n" + small,
		"timeout":  small + "promote.timeout = '31s'\n",
		"on":       small + "check.on = 'both'\n",
		"settings": strings.Replace(small, "weight = 1", "weight = 1.0", 1),
		"key":      strings.Replace(small, "weight", "height", 1),
		"parts":    small + "[[plugin]]\nuse = 'guard'\n",
	} {
		if got := parse(t, src).Hash; got == want {
			t.Errorf("another %s: the hash is the same", name)
		}
	}
	if parse(t, small+"name = 'x'\n[[plugin]]\nuse='vip'").Hash == parse(t, "[[plugin]]\nuse='vip'\n"+small+"name = 'x'\n").Hash {
		t.Error("the order of plugins does not count")
	}
}

// TOML has values that JSON lacks.
func TestHashOfOddValues(t *testing.T) {
	src := "[[plugin]]\nuse = 'vip'\nconfig = { a = [nan, inf, -inf, 1e300], b = 0000-01-01T00:00:00+23:59, c = 07:32:00, d = [[], [{}]] }\n"
	if a, b := parse(t, src), parse(t, strings.Replace(src, "+23:59", "+23:58", 1)); a.Hash == b.Hash {
		t.Error("another date, the same hash")
	}
}

func TestEmptySettingsAreNone(t *testing.T) {
	if parse(t, "[[plugin]]\nuse='x'\nconfig={}").Hash != parse(t, "[[plugin]]\nuse='x'").Hash {
		t.Error("an empty config counts")
	}
}

func TestShortIntervalShortensTheDefaultTimeout(t *testing.T) {
	s := parse(t, "[[plugin]]\nuse = 'tcp'\ncheck.interval = '200ms'")
	if got := s.Parts[0].Check.Timeout; got != 200*time.Millisecond {
		t.Errorf("timeout %s, want that of the interval", got)
	}
}

func TestTooManyParts(t *testing.T) {
	var src strings.Builder
	for i := range MaxParts + 2 {
		if i == MaxParts {
			parse(t, src.String())
		}
		fmt.Fprintf(&src, "[[plugin]]\nuse = 'tcp'\nname = 'n%d'\n", i)
	}
	_, err := parseService("a.toml", src.String(), nil)
	if want := "a.toml:97:3: plugin: is one too many; a service has at most 32"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestGet(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"orders-db.toml": small, "broken.toml": "ttl = 1"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadServices(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get("orders-db"); err != nil || got.Name != "orders-db" {
		t.Errorf("got %q, %v", got.Name, err)
	}
	var wrong Mistakes
	if _, err := s.Get("broken"); !errors.As(err, &wrong) || len(wrong) != 2 {
		t.Errorf("got %v, want both mistakes", err)
	}
	if !errors.As(s.Err(), &wrong) || len(wrong) != 2 {
		t.Errorf("got %v, want the mistakes of all services", s.Err())
	}
	_, err = s.Get("order-db")
	if !errors.Is(err, supervisor.ErrNoService) || !strings.Contains(err.Error(), `did you mean "orders-db"?`) {
		t.Errorf("got %v, want no such service, with a hint", err)
	}
	if _, err := LoadServices(dir+"/none", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not-exist", err)
	}
}

func TestMistakesAsJSON(t *testing.T) {
	_, err := parseService("a.toml", "ttl = '1ms'\n"+small, nil)
	text, jsonErr := json.Marshal(err)
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	want := `[{"file":"a.toml","line":1,"column":1,"key":"ttl","text":"is 1ms, must be at least 300ms"}]`
	if string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestCheckForced(t *testing.T) {
	s := parse(t, "# a comment\nttl = '1s'\n"+small)
	if err := CheckForced(s, map[string]time.Duration{"vip": 150 * time.Millisecond, "silent": 0}); err != nil {
		t.Errorf("a bound that fits is refused: %v", err)
	}
	err := CheckForced(s, map[string]time.Duration{"vip": 151 * time.Millisecond, "mysql": 400 * time.Millisecond, "ok": 1})
	want := `orders-db.toml: ttl: 1s leaves 150ms for a forced demotion, and mysql (400ms) and vip (151ms) may take longer; the smallest ttl that works is "2.667s"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	err = CheckForced(s, map[string]time.Duration{"vip": time.Minute})
	if err == nil || !strings.Contains(err.Error(), "no ttl up to 5m is enough") {
		t.Errorf("got %v, want that none is enough", err)
	}

	file := t.TempDir() + "/orders-db.toml"
	if err := os.WriteFile(file, []byte("# a comment\n  ttl = '1s'\n"+small), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = LoadService(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wrong Mistakes
	if err := CheckForced(s, map[string]time.Duration{"vip": time.Second}); !errors.As(err, &wrong) || wrong[0].Line != 2 || wrong[0].Column != 3 {
		t.Errorf("got %v, want the place of ttl", err)
	}
}

// Where nobody can fence, a definition that wants fences would leave the service
// without a primary at the worst moment.
func TestSomebodyHasToFence(t *testing.T) {
	const script = "[[plugin]]\nuse = 'exec'\nconfig = { check = ['/bin/true']%s }\n"
	alone, fences := fmt.Sprintf(script, ""), fmt.Sprintf(script, ", fence = ['/bin/true']")
	_, err := parseService("orders-db.toml", "on_unclean = 'fence'\n"+alone, nil)
	if want := `orders-db.toml:1:1: on_unclean: is "fence", and no plugin of this service can fence`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, right := range []string{"on_unclean = 'wait'\n" + alone, alone, "on_unclean = 'fence'\n" + fences, "on_unclean = 'fence'\n[[plugin]]\nuse = 'other'\n"} {
		if s := parse(t, right); s.OnUnclean == supervisor.UncleanFence && CheckFence(s, 1) != nil {
			t.Errorf("refused although one can fence: %v", CheckFence(s, 1))
		}
	}
	if err := CheckFence(parse(t, "on_unclean = 'fence'\n[[plugin]]\nuse = 'other'\n"), 0); err == nil || !strings.Contains(err.Error(), "on_unclean") {
		t.Errorf("got %v, want that nobody can fence", err)
	}
	if err := CheckFence(parse(t, alone), 0); err != nil {
		t.Errorf("got %v where no fence is wanted", err)
	}
}

func TestFencePolicy(t *testing.T) {
	s := parse(t, "on_unclean = 'fence'\n[[plugin]]\nuse = 'other'\nfence = { timeout = '90s', retries = 0 }\n")
	if got, want := s.Parts[0].Fence, (supervisor.ActPolicy{Timeout: 90 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	lines := Arithmetic(s).Lines
	if last := lines[len(lines)-1]; last.Key != "fence" || last.Time != 90*time.Second {
		t.Errorf("the last line is %+v, want that of the fence", last)
	}
	_, err := parseService("a.toml", "[[plugin]]\nuse = 'exec'\nconfig = { check = ['/bin/true'] }\nfence = { timeout = '90s' }\n", nil)
	if err == nil || !strings.Contains(err.Error(), "fence: has no effect, as config has no fence") {
		t.Errorf("got %v, want that the policy has no effect", err)
	}
}

func TestSmallestTTL(t *testing.T) {
	for forced := time.Duration(0); forced < time.Minute; forced += 997 * time.Microsecond {
		ttl, ok := smallestTTL(forced)
		if !ok {
			if forced <= supervisor.NewTiming(supervisor.MaxTTL).Forced() {
				t.Fatalf("%s: none found", forced)
			}
			continue
		}
		if supervisor.NewTiming(ttl).Forced() < forced || ttl > supervisor.MaxTTL {
			t.Fatalf("%s: ttl %s does not work", forced, ttl)
		}
		if less := ttl - time.Millisecond; less >= supervisor.MinTTL && supervisor.NewTiming(less).Forced() >= forced {
			t.Fatalf("%s: ttl %s works as well as %s", forced, less, ttl)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 10 * time.Second: "10s",
		100 * time.Minute: "1h40m", 20 * time.Minute: "20m", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s", math.MaxInt64: "2562047h47m16.854775807s",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %q, want %q", d, got, want)
		}
	}
}
