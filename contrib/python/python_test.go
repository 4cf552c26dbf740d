package python

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// plugin is the program of testdata/plugin.py, beside the kit.
func plugin(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3 with its grpcio and protobuf: %v\n%s", err, out)
		}
		t.Skipf("apt install python3-grpcio python3-protobuf: %v", err)
	}
	return beside(t, read(t, "testdata/plugin.py"))
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// beside puts a program and the kit into one folder.
func beside(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"deputy_plugin.py": Kit, "deputy-plugin-all": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "deputy-plugin-all")
}

// looks tells whether the plugin's part acts as primary.
func looks(file string) func() (bool, error) {
	return func() (bool, error) {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		until, err := strconv.ParseInt(string(text), 10, 64)
		return int64(sdk.Now()) < until, err
	}
}

// TestContract examines plugins that promote in different ways as any other.
func TestContract(t *testing.T) {
	program := plugin(t)
	for name, settings := range map[string]map[string]any{
		"slowly":       {"how": "slow", "takes": "250ms"},
		"by a program": {"how": "child", "takes": "250ms"},
		"noisily":      {"noise": 300000},
		"a daemon":     {"how": "daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := maps.Clone(settings)
			file := filepath.Join(t.TempDir(), "primary")
			settings["file"] = file
			c := sdktest.Config{Settings: settings, Promoted: looks(file), Expires: true, Victim: sdk.Peer{Node: "victim"}}
			switch name { // what is as in that which is slow is left out
			case "by a program":
				c.Only = regexp.MustCompile("^(leaves-nothing|supersede|cancel|deadline|kill-promote|host-death)$")
			case "noisily":
				c.Only = regexp.MustCompile("^(start|promote|adopt|output)$")
			case "a daemon":
				c.Only = regexp.MustCompile("^(promote|adopt|descriptors|host-death)$")
			}
			sdktest.Run(t, sdktest.Binary(program), c)
		})
	}
}

// TestReadmesPlugin has the plugin of the guide keep the contract.
func TestReadmesPlugin(t *testing.T) {
	plugin(t)
	block := regexp.MustCompile("(?s)```python\n(.*?)```").FindStringSubmatch(read(t, "README.md"))
	if block == nil {
		t.Fatal("README.md has no plugin")
	}
	file := filepath.Join(t.TempDir(), "primary")
	sdktest.Run(t, sdktest.Binary(beside(t, block[1])), sdktest.Config{
		Settings: map[string]any{"file": file},
		Promoted: func() (bool, error) {
			_, err := os.Stat(file)
			return err == nil, nil
		},
		Only: regexp.MustCompile("^(start|settings|demote.*|promote.*|adopt|check-.*)$"),
	})
}

// A guest is a plugin that a test calls.
type guest struct {
	sdktest.Hosted
	t    *testing.T
	file string
	n    int
}

// open starts the plugin with settings besides its file.
func open(t *testing.T, settings string) *guest {
	t.Helper()
	h, err := sdktest.Binary(plugin(t)).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{Hosted: h, t: t, file: filepath.Join(t.TempDir(), "primary")}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = h.Kill(ctx)
	})
	if err := g.Configure(t.Context(), g.setup(t, settings)); err != nil {
		t.Fatal(err)
	}
	return g
}

// setup is what the plugin is configured with: a JSON object, its file put in.
func (g *guest) setup(t *testing.T, settings string) wire.Setup {
	t.Helper()
	config := map[string]any{"file": g.file}
	if err := json.Unmarshal([]byte("{"+settings+"}"), &config); err != nil {
		t.Fatal(err)
	}
	return wire.Setup{Service: "db", Node: "a", Part: "all", StateDir: "/state", Config: config}
}

// act returns a new act.
func (g *guest) act(a sdk.Action, term sdk.Term) sdk.Transition {
	g.n++
	return sdk.Transition{
		ID: fmt.Sprint(g.n), Action: a, Mode: sdk.Planned, Service: "db", Node: "a", Term: term, Reason: sdk.ReasonElection, Cause: "told so",
		Attempt: 1, Timeout: 10 * time.Second, LeaseUntil: sdk.Now().Add(time.Hour), StateDir: "/state",
		Primary: sdk.Peer{Node: "b", Address: "192.0.2.2"}, Members: []sdk.Peer{{Node: "a", Address: "192.0.2.1"}, {Node: "b"}},
	}
}

func (g *guest) do(t sdk.Transition) sdk.Result {
	return g.Do(g.t.Context(), t, time.Second, func(string) {})
}

func TestOutcomes(t *testing.T) {
	g := open(t, "")
	for _, c := range []struct {
		raises string
		want   sdk.Result
		logged string
	}{
		{`Already("it serves")`, sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "it serves"}, ""},
		{`Already`, sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "promoted for term 7"}, ""},
		{`Unchanged("full")`, sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "full"}, ""},
		{`Retry("full", 2.5)`, sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "full", RetryAfter: 2500 * time.Millisecond}, ""},
		{`Refuse("no")`, sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "no", Refused: true}, ""},
		{`Stale("term 9")`, sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "term 9"}, ""},
		{`KeyError("x")`, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "KeyError: 'x'"}, `KeyError: 'x'","stack":"Traceback`},
		{`SystemExit(0)`, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "SystemExit: 0"}, "plugin raises"},
		{`Mistake("k", "of no use here")`, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "deputy_plugin.Mistake: k: of no use here"}, "plugin raises"},
		{`ExceptionGroup("all", [Already("a"), Already("b")])`, sdk.Result{Outcome: sdk.OutcomeAlready, Detail: "a; b"}, ""},
		{`ExceptionGroup("all", [Already("a"), Refuse("b"), Retry("c", 1)])`, sdk.Result{Outcome: sdk.OutcomeUnchanged, Detail: "a; b; c", Refused: true, RetryAfter: time.Second}, ""},
		{`ExceptionGroup("all", [Refuse("b"), Stale("c")])`, sdk.Result{Outcome: sdk.OutcomeStaleTerm, Detail: "b; c"}, ""},
		{`ExceptionGroup("all", [Already("a"), OSError("b")])`, sdk.Result{Outcome: sdk.OutcomeUnknown, Detail: "a; OSError: b"}, "plugin raises"},
	} {
		raises, _ := json.Marshal(c.raises)
		if err := g.Configure(t.Context(), g.setup(t, `"raises": `+string(raises))); err != nil {
			t.Fatal(err)
		}
		got := g.do(g.act(sdk.Promote, 7))
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.raises, got, c.want)
		}
		if c.logged != "" {
			eventually(t, c.raises+" in the log", func() bool { return strings.Contains(g.Said(), c.logged) })
		}
	}
}

// eventually waits for what another process does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAnActIsToldEverything(t *testing.T) {
	g := open(t, "")
	want := sdk.Result{Outcome: sdk.OutcomeDone, Detail: "db follows b at 192.0.2.2 in /state: election, told so"}
	if got := g.do(g.act(sdk.Follow, 7)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for victim, want := range map[string]sdk.Outcome{"victim": sdk.OutcomeDone, "a": sdk.OutcomeUnchanged, "": sdk.OutcomeUnchanged, "c": sdk.OutcomeUnchanged} {
		f := g.act(sdk.Fence, 7)
		f.Primary = sdk.Peer{Node: victim}
		if got := g.do(f); got.Outcome != want || got.Refused != (want == sdk.OutcomeUnchanged) {
			t.Errorf("fence of %q: got %+v, want %s", victim, got, want)
		}
	}
}

// A promote that heeds nothing is waited for, and nothing of it comes after the
// demotion; what is asked meanwhile does not begin.
func TestADemotionWaitsForWhatRuns(t *testing.T) {
	g := open(t, `"how": "hang", "takes": "700ms"`)
	ended := make(chan sdk.Result, 2)
	beats := make(chan struct{}, 1000)
	first, second := g.act(sdk.Promote, 7), g.act(sdk.Promote, 7)
	go func() {
		ended <- g.Do(t.Context(), first, 20*time.Millisecond, func(string) { beats <- struct{}{} })
	}()
	<-beats
	go func() { ended <- g.do(second) }() // waits its turn
	time.Sleep(100 * time.Millisecond)
	short := g.act(sdk.Demote, 7)
	short.Timeout = 100 * time.Millisecond
	if got := g.do(short); got.Outcome != sdk.OutcomeUnknown || !strings.Contains(got.Detail, "another promote still runs") {
		t.Errorf("a demotion without time: got %+v, want that it did not begin, and is unknown", got)
	}
	if got := g.do(g.act(sdk.Demote, 7)); got.Outcome != sdk.OutcomeDone {
		t.Errorf("a demotion: got %+v, want done, after the promote", got)
	}
	if is, err := looks(g.file)(); is || err != nil {
		t.Errorf("is primary: %v, %v", is, err)
	}
	outcomes := []sdk.Outcome{(<-ended).Outcome, (<-ended).Outcome}
	slices.Sort(outcomes)
	if !slices.Equal(outcomes, []sdk.Outcome{sdk.OutcomeDone, sdk.OutcomeUnknown}) {
		t.Errorf("the promotes: %q, want one that was done before the demotion, and one that never began", outcomes)
	}
	if len(beats) < 10 {
		t.Errorf("%d heartbeats in 700 ms, want one each 20 ms", len(beats))
	}
}

// Who ends a call may tell of it when what it runs is over already, and its
// descriptors are others'.
func TestATellThatComesLate(t *testing.T) {
	script := filepath.Join(filepath.Dir(plugin(t)), "late.py")
	if err := os.WriteFile(script, []byte(`
import os
import deputy_plugin as deputy

call, told = deputy._Call(), []
telling = call.telling
call.telling = lambda tell: (told.append(tell), telling(tell))[1]
with call.here():
    deputy.run("/bin/true")
others = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(16)]
for tell in told:
    tell()
for fd in others:
    try:
        os.eventfd_read(fd)
        raise SystemExit("it has written to another file")
    except BlockingIOError:
        pass
print(len(told), "told")
`), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", script).CombinedOutput(); err != nil || string(out) != "1 told\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestProgressArrives(t *testing.T) {
	g := open(t, `"how": "slow", "takes": "30ms"`)
	var said []string
	if r := g.Do(t.Context(), g.act(sdk.Promote, 7), time.Second, func(s string) { said = append(said, s) }); !r.Outcome.OK() || r.Detail != "promoted for term 7" {
		t.Errorf("got %+v", r)
	}
	if !slices.Contains(said, "50% half of it") {
		t.Errorf("got %q", said)
	}
}

// Checks that hang keep nobody waiting.
func TestChecksThatHang(t *testing.T) {
	g := open(t, `"how": "hang", "takes": "60s"`)
	for range 60 {
		go func() { _, _ = g.Check(t.Context(), sdk.RoleStandby, 7) }()
	}
	began := time.Now()
	if r := g.do(g.act(sdk.Demote, 7)); !r.Outcome.OK() {
		t.Errorf("got %+v", r)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the demotion took %s", took)
	}
}

func TestCheckWatchAndRank(t *testing.T) {
	g := open(t, "")
	if h, err := g.Check(t.Context(), sdk.RoleStandby, 7); err != nil || h != (sdk.Health{Fit: true, Detail: "asked as standby", Position: "7", Certain: true}) {
		t.Errorf("got %+v, %v", h, err)
	}
	if h, err := g.Check(t.Context(), sdk.RoleCandidate, 7); err != nil || h.Fit {
		t.Errorf("got %+v, %v", h, err)
	}
	client := g.Hosted.(interface {
		Watch(ctx context.Context, changed func()) error
		Rank(ctx context.Context, mine string, others map[string]string) (map[string]sdk.Order, error)
	})
	orders, err := client.Rank(t.Context(), "5", map[string]string{"b": "4", "c": "5", "d": "6", "e": ""})
	if diff := cmp.Diff(map[string]sdk.Order{"b": sdk.Ahead, "c": sdk.Equal, "d": sdk.Behind}, orders); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := client.Rank(t.Context(), "x", map[string]string{"b": "4"}); err == nil || !strings.Contains(err.Error(), "ValueError: invalid literal") {
		t.Errorf("a rank that raises: got %v", err)
	}
	watched, changed := make(chan error, 1), make(chan struct{}, 10)
	go func() { watched <- client.Watch(t.Context(), func() { changed <- struct{}{} }) }()
	<-changed
	// Other settings: it is closed, and watched anew.
	if err := g.Configure(t.Context(), g.setup(t, `"how": "raise"`)); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; err != nil {
		t.Errorf("a watch of before ended with %v", err)
	}
	for _, what := range []string{".unwatched", ".closed"} {
		if _, err := os.Stat(g.file + what); err != nil {
			t.Error(err)
		}
	}
	if _, err := g.Check(t.Context(), sdk.RoleStandby, 7); err == nil || !strings.Contains(err.Error(), "check returned None, which is no Health") {
		t.Errorf("a check that returns nothing: got %v", err)
	}
}

func TestRenewTellsWhatHasExpired(t *testing.T) {
	g := open(t, "")
	a := g.act(sdk.Promote, 7)
	a.LeaseUntil = sdk.Now().Add(20 * time.Millisecond)
	if r := g.do(a); r.Outcome != sdk.OutcomeDone {
		t.Fatal(r)
	}
	time.Sleep(time.Until(time.Now().Add(a.LeaseUntil.Sub(sdk.Now()))))
	if err := g.Renew(t.Context(), sdk.Now().Add(time.Hour)); !errors.Is(err, sdk.ErrExpired) {
		t.Errorf("got %v, want that it has expired", err)
	}
	if _, err := os.Stat(g.file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what has expired came back: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	g := open(t, "")
	for _, c := range []struct{ settings, want string }{
		{`"retry": {"count": 5, "wait": "2m0.5s"}, "addresses": [{"address": "192.0.2.1/24", "label": "x"}], "peers": ["::1"], "weights": {"a": 1, "b": 2.5}, "colour": "green", "how": "slow", "password": "p"`, ""},
		{`"file": ""`, "file: is empty, and it is required: the file that is there on the primary"},
		{`"file": 3`, "file: must be a text in quotes, not the number 3"},
		{`"fiel": "x", "a b": 1`, `"a b": unknown key; there are "file", "how", "raises", "takes", "noise", "retry", "addresses", "peers", "weights", "colour", "sure", "password" and "bad"
fiel: unknown key; did you mean "file"?`},
		{`"how": "slwo", "colour": "blue"`, `how: "slwo" is not one of its values; did you mean "slow"?
colour: "blue" is not one of its values; there are "red" and "green"`},
		{`"takes": 3`, `takes: must be a duration in quotes with its unit, like "3s" or "3ms", not the number 3`},
		{`"takes": "3", "noise": 2.5, "sure": "yes"`, `takes: "3" is not a duration; write a number and its unit (ms, s, m, h), like "500ms" or "1m30s"
noise: must be a whole number, not the number 2.5
sure: must be true or false, without quotes, not the text "yes"`},
		{`"noise": true, "weights": {"a": "1"}, "peers": "x"`, `noise: must be a whole number, without quotes, not true
peers: must be an array like [one, two], not the text "x"
weights.a: must be a number, without quotes, not the text "1"`},
		{`"retry": {"count": 0, "wait": "1ms"}`, "retry.count: is 0, must be at least 1\nretry.wait: is 1ms, must be at least 10ms"},
		{`"retry": {"count": 10}`, "retry.count: is 10, must be at most 9"},
		{`"retry": {"count": 7}`, "retry.count: 7 is unlucky"},
		{`"addresses": [{"address": "192.0.2.1"}, {}]`, `addresses[0].address: "192.0.2.1" is not an IP address with its prefix length, like "192.0.2.10/24"
addresses[1].address: is missing, and it is required: what it adds`},
		{`"peers": ["localhost"]`, `peers[0]: "localhost" is not an IP address, like "192.0.2.10"`},
		{`"password": 5`, "password: must be a text in quotes, not what is given"},
		{`"colour": "green", "sure": false`, "green is for the sure"},
	} {
		err := g.Validate(t.Context(), g.setup(t, c.settings))
		if got := strings.TrimPrefix(fmt.Sprint(err), "<nil>"); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.settings, got, c.want)
		}
		if wrong := wire.Mistakes(nil); err != nil && !errors.As(err, &wrong) {
			t.Errorf("%s: %T", c.settings, err)
		}
	}
	if err := g.Configure(t.Context(), g.setup(t, `"bad": "it is"`)); err == nil || err.Error() != "bad: it is" {
		t.Errorf("a mistake that the class finds: got %v", err)
	}
	if h, err := g.Check(t.Context(), sdk.RoleStandby, 7); err != nil || !h.Fit {
		t.Errorf("the settings of before are not in force any more: %+v, %v", h, err)
	}
}

func TestDescription(t *testing.T) {
	g := open(t, "")
	d, err := g.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	schema := d.Schema
	d.Schema = nil
	want := wire.Description{
		Name: "all", Version: "1.2.3", SDK: "deputy_plugin.py 1", Doc: "Can everything, and what it does is told by its settings.",
		Capabilities: []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanRenew, sdk.CanCheck, sdk.CanWatch, sdk.CanRank, sdk.CanFollow, sdk.CanFence},
		ForcedBound:  500 * time.Millisecond, Heartbeats: true,
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var top struct {
		Properties map[string]any
		Required   []string
		Additional any `json:"additionalProperties"`
	}
	if err := json.Unmarshal(schema, &top); err != nil {
		t.Fatal(err)
	}
	duration := `"pattern":"^[-+]?(0|([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$"`
	for key, want := range map[string]string{
		"file":     `{"description":"the file that is there on the primary","minLength":1,"type":"string"}`,
		"takes":    `{"default":"0s","description":"how long a promote takes",` + duration + `,"type":"string"}`,
		"password": `{"default":"","description":"a secret","type":"string","writeOnly":true}`,
		"colour":   `{"default":"red","description":"of no use","enum":["red","green"],"type":"string"}`,
		"peers":    `{"default":[],"description":"whom it asks","items":{"format":"ip","type":"string"},"type":"array"}`,
		"retry": `{"additionalProperties":false,"description":"what is tried again","properties":{"count":{"default":3,"description":"how often","maximum":9,"minimum":1,"type":"integer"},` +
			`"wait":{"default":"1.5s","description":"how long between (at least 10ms)",` + duration + `,"type":"string"},"where":{"default":"","description":"in which file","type":"string"}},"type":"object"}`,
		"addresses": `{"default":[],"description":"what it has","items":{"additionalProperties":false,"properties":{"address":{"description":"what it adds","format":"ip-prefix","minLength":1,"type":"string"},` +
			`"label":{"description":"how it is called","type":"string"}},"required":["address"],"type":"object"},"type":"array"}`,
	} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(top.Properties[key]); err != nil || strings.TrimSpace(b.String()) != want {
			t.Errorf("%s: got %s, want %s", key, &b, want)
		}
	}
	if !slices.Equal(top.Required, []string{"file"}) || top.Additional != false {
		t.Errorf("required %q, additional %v", top.Required, top.Additional)
	}
}

// TestByHand runs the program as people do; it needs no grpc for that.
func TestByHand(t *testing.T) {
	program := beside(t, read(t, "testdata/plugin.py"))
	file := filepath.Join(t.TempDir(), "primary")
	settings := `{"file": "` + file + `"}`
	for _, c := range []struct {
		args []string
		in   string
		exit int
		says string // a regular expression
	}{
		{nil, "", 0, `^Can everything`},
		{[]string{"--help"}, "", 0, `(?m)^  retry.wait +duration, at least 10ms +default "1.5s" +how long between$`},
		{[]string{"--version"}, "", 0, `^all 1.2.3\n$`},
		{[]string{"describe"}, "", 0, `forced demote  500ms`},
		{[]string{"describe", "-o", "markdown"}, "", 0, "(?m)^\\| `addresses\\[\\].address` \\| IP address with its prefix length \\| required \\| what it adds \\|$"},
		{[]string{"describe", "-o", "schema"}, "", 0, `"writeOnly": true`},
		{[]string{"describe", "-o", "yaml"}, "", 64, `invalid choice`},
		{[]string{"validate", "-"}, settings, 0, `^$`},
		{[]string{"validate", "-"}, `{"fil": 1}`, 78, `(?m)^file: is missing.*\nfil: unknown key; did you mean "file"\?$`},
		{[]string{"validate", "-"}, `[`, 78, `settings are not JSON`},
		{[]string{"validate", "/nowhere"}, ``, 78, `read settings: .*No such file`},
		{[]string{"validate"}, ``, 64, `required`},
		{[]string{"call", "promote", "--settings", "-"}, settings, 0, `^done: promoted for term 1\n$`},
		{[]string{"call", "--settings", "-", "promote", "--term", "3"}, settings, 10, `^already: promoted for term 3\n$`},
		{[]string{"call", "check", "--settings", "-", "--role", "candidate"}, settings, 2, `^not fit: asked as candidate\nposition 7\n$`},
		{[]string{"call", "demote", "--mode", "forced", "--settings", "-"}, settings, 0, `^done\n$`},
		{[]string{"call", "promote", "--settings", "-"}, `{"file": "` + file + `", "raises": "Retry('full', 90)"}`, 75, `^failed-unchanged: full \(not again before 1m30s\)\n$`},
		{[]string{"call", "promote", "--settings", "-"}, `{"file": "` + file + `", "raises": "Refuse('no')"}`, 20, `^refused: no\n$`},
		{[]string{"call", "promote", "--settings", "-"}, `{"file": "` + file + `", "raises": "Stale('old')"}`, 40, `^stale-term: old\n$`},
		{[]string{"call", "promote", "--settings", "-"}, `{"file": "` + file + `", "raises": "OSError('broken')"}`, 1, `failed-unknown: OSError: broken`},
		{[]string{"call", "promote", "--settings", "-", "--timeout", "100ms"}, `{"file": "` + file + `", "how": "slow", "takes": "10s"}`, 1, `failed-unknown: not done within .*ms`},
		{[]string{"call", "promote", "--settings", "-", "--timeout", "300ms"}, `{"file": "` + file + `", "how": "child", "takes": "10s"}`, 1, `failed-unknown: not done within .*ms`},
		{[]string{"call", "promote", "--settings", "-"}, `{"file": "` + file + `", "how": "child"}`, 0, `command says`},
		{[]string{"call", "demote", "--settings", "-"}, settings, 0, `done`},
		{[]string{"call", "rank", "--settings", "-", "--mine", "3", "b=2", "c=4"}, settings, 0, `^b ahead\nc behind\n$`},
		{[]string{"call", "fence", "--settings", "-", "--primary", "victim"}, settings, 0, `^done\n$`},
		{[]string{"call", "renew", "--settings", "-"}, settings, 0, `^done\n$`},
		{[]string{"call", "swim"}, "", 64, `invalid choice: 'swim'`},
		{[]string{"call", "promote"}, "", 78, `file: is missing`},
		{[]string{"descrbe"}, "", 64, `unknown command "descrbe"; did you mean "describe"\?`},
	} {
		cmd := exec.CommandContext(t.Context(), program, c.args...)
		cmd.Stdin = strings.NewReader(c.in)
		cmd.Env = append(os.Environ(), "PYTHONPATH=/nowhere")
		out, _ := cmd.CombinedOutput()
		said := regexp.MustCompile(`(?m)^WARNING is made\n`).ReplaceAllString(string(out), "")
		if code := cmd.ProcessState.ExitCode(); code != c.exit || !regexp.MustCompile(c.says).MatchString(said) {
			t.Errorf("%q: got exit code %d, want %d, and %q in\n%s", c.args, code, c.exit, c.says, said)
		}
	}
}

// What cannot be served is told at the first start, by hand or not.
func TestClassesThatCannotBeServed(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"class P:\n  def promote(self, act): pass", "P can promote but not demote"},
		{"class P:\n  def watch(self, changed, stop): pass", "P can watch but not check"},
		{"class P: pass", "has none of the methods"},
		{"class P:\n  def demote(self, act): pass\n@dataclass\nclass S:\n  a: str = 'x'", "settings S: a: make it by setting(), with what it is for"},
		{"class P:\n  def demote(self, act): pass\n@dataclass\nclass S:\n  a: complex = deputy.setting('x')", "a setting cannot be a complex"},
		{"class P:\n  def demote(self, act): pass\n@dataclass\nclass S:\n  a: str = deputy.setting('x', min=3)", "a: min and max are for numbers and durations"},
		{"class P:\n  def demote(self, act): pass\nS = int", "is no dataclass of settings"},
	} {
		text := "#!/usr/bin/python3\nfrom dataclasses import dataclass\nimport deputy_plugin as deputy\nS = None\n" + c.body + "\ndeputy.main('p', P, S)\n"
		out, err := exec.CommandContext(t.Context(), beside(t, text)).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "TypeError: ") || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v, want a TypeError with %q:\n%s", c.body, err, c.want, out)
		}
	}
}

func TestAnotherVersionOfTheProtocol(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), plugin(t))
	cmd.Env = append(os.Environ(), "DEPUTY_PLUGIN=deputy.plugin", "PLUGIN_PROTOCOL_VERSIONS=2,3", "PLUGIN_UNIX_SOCKET_DIR="+t.TempDir())
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "it speaks version 1 of the protocol, its host 2, 3") {
		t.Errorf("got %s\n%s", cmd.ProcessState, out)
	}
}
