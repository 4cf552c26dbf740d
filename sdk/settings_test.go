package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type every struct {
	Text     string            `toml:"text" doc:"a text" default:"hello"`
	Need     string            `toml:"need" doc:"the one that must be there" required:"true"`
	Flag     bool              `toml:"flag" doc:"yes or no" default:"true"`
	Small    int8              `toml:"small" doc:"a small number"`
	Port     uint16            `toml:"port" doc:"where it listens" default:"80" min:"1" max:"8080"`
	Long     int64             `toml:"long" doc:"an exact one"`
	Share    float64           `toml:"share" doc:"a part of the whole" default:"0.5" min:"0" max:"1"`
	Every    time.Duration     `toml:"every" doc:"how often" default:"200ms" min:"10ms" max:"1m"`
	Addr     netip.Addr        `toml:"addr" doc:"where to" default:"192.0.2.1"`
	Prefixes []netip.Prefix    `toml:"prefixes" doc:"what it holds"`
	On       string            `toml:"on" doc:"what a conflict does" enum:"fail|wait|force" default:"wait"`
	Families []string          `toml:"families" doc:"which families" enum:"ipv4|ipv6" default:"ipv4, ipv6"`
	Times    []time.Duration   `toml:"times" doc:"when again" min:"1s" default:"1s,5s"`
	Labels   map[string]string `toml:"labels" doc:"for people"`
	Password string            `toml:"password" doc:"how to get in" sensitive:"true"`
	Retry    retry             `toml:"retry" doc:"how it tries again"`
	TLS      *tlsFiles         `toml:"tls" doc:"how it is kept private"`
	Nodes    []node            `toml:"nodes" doc:"who is asked"`
	common
	Own chan int `toml:"-"`
}

type retry struct {
	Count int           `toml:"count" doc:"how often" default:"3" min:"1"`
	Wait  time.Duration `toml:"wait" doc:"how long between" default:"1s"`
}

type tlsFiles struct {
	Cert string `toml:"cert" doc:"the certificate" required:"true"`
}

type node struct {
	Host string `toml:"host" doc:"its name" required:"true"`
	Port int    `toml:"port" doc:"its port" default:"3306"`
}

func (n *node) Validate() error {
	if n.Host == "localhost" {
		return errors.Join(&KeyError{"host", errors.New("is this node")}, errors.New("is of no use"))
	}
	return nil
}

type common struct {
	Debug bool `toml:"debug" doc:"says more"`
}

func (e every) Validate() error {
	if e.Text == "odd" {
		return fmt.Errorf("judge: %w", &KeyError{"text", errors.New("is odd")})
	}
	return nil
}

func describe[C any](t testing.TB) *settings {
	t.Helper()
	s, err := settingsOf(reflect.TypeFor[C]())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSettingsArrive(t *testing.T) {
	for _, test := range []struct {
		name, config string
		change       func(*every)
	}{
		{"defaults", `{"need":"x"}`, func(*every) {}},
		{"texts", `{"need":"x","text":"","labels":{"a":"b","a b":""},"password":"hunter2","on":"force"}`, func(e *every) {
			e.Text, e.Labels, e.Password, e.On = "", map[string]string{"a": "b", "a b": ""}, "hunter2", "force"
		}},
		{"numbers", `{"need":"x","flag":false,"small":-128,"port":8080,"long":9007199254740993,"share":1,"debug":true}`, func(e *every) {
			e.Flag, e.Small, e.Port, e.Long, e.Share, e.Debug = false, -128, 8080, 9007199254740993, 1, true
		}},
		{"durations", `{"need":"x","every":"1m","times":["90s"]}`, func(e *every) {
			e.Every, e.Times = time.Minute, []time.Duration{90 * time.Second}
		}},
		{"addresses", `{"need":"x","addr":"2001:db8::1","prefixes":["192.0.2.10/32","2001:db8::1/128"],"families":[]}`, func(e *every) {
			e.Addr, e.Families = netip.MustParseAddr("2001:db8::1"), []string{}
			e.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32"), netip.MustParsePrefix("2001:db8::1/128")}
		}},
		{"tables", `{"need":"x","retry":{"count":5},"tls":{"cert":"c"},"nodes":[{"host":"a"},{"host":"b","port":1}]}`, func(e *every) {
			e.Retry.Count, e.TLS, e.Nodes = 5, &tlsFiles{"c"}, []node{{"a", 3306}, {"b", 1}}
		}},
	} {
		want := every{
			Text: "hello", Need: "x", Flag: true, Port: 80, Share: 0.5, Every: 200 * time.Millisecond,
			Addr: netip.MustParseAddr("192.0.2.1"), On: "wait", Families: []string{"ipv4", "ipv6"},
			Times: []time.Duration{time.Second, 5 * time.Second}, Retry: retry{3, time.Second},
		}
		test.change(&want)
		got, err := describe[every](t).decode(test.config)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !reflect.DeepEqual(got.Interface(), want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got.Interface(), want)
		}
	}
}

// Every mistake is told, by its key and in the words of TOML.
func TestMistakesAreTold(t *testing.T) {
	for _, test := range []struct {
		config string
		want   []string
	}{
		{``, []string{`need: is missing, and it is required: the one that must be there`}},
		{`{"need":""}`, []string{`need: is empty, and it is required: the one that must be there`}},
		{`{"nede":"x"}`, []string{
			`need: is missing, and it is required: the one that must be there`,
			`nede: unknown key; did you mean "need"?`,
		}},
		{`{"need":"x","retry":{"coutn":1,"a b":2}}`, []string{
			`retry."a b": unknown key; there are "count" and "wait"`,
			`retry.coutn: unknown key; did you mean "count"?`,
		}},
		{`{"need":5,"text":true,"flag":"true","small":"5","every":5,"addr":1,"labels":[],"retry":"x","nodes":{},"times":"1s","share":"1"}`, []string{
			`text: must be a text in quotes, not true`,
			`need: must be a text in quotes, not the number 5`,
			`flag: must be true or false, without quotes, not the text "true"`,
			`small: must be a whole number, without quotes, not the text "5"`,
			`share: must be a number, without quotes, not the text "1"`,
			`every: must be a duration in quotes with its unit, like "5s" or "5ms", not the number 5`,
			`addr: must be an IP address in quotes, not the number 1`,
			`times: must be an array like [one, two], not the text "1s"`,
			`labels: must be a table like { key = value }, not an array`,
			`retry: must be a table like { key = value }, not the text "x"`,
			`nodes: must be an array of tables like [{ key = value }], not a table`,
		}},
		{`{"need":"x","small":128,"port":0,"long":9223372036854775808,"share":1.5,"every":"1h"}`, []string{
			`small: is 128, must be at most 127`,
			`port: is 0, must be at least 1`,
			`long: is 9223372036854775808, must be at most 9223372036854775807`,
			`share: is 1.5, must be at most 1`,
			`every: is 1h0m0s, must be at most 1m`,
		}},
		{`{"need":"x","port":-1,"small":1.5,"share":1e999,"long":null}`, []string{
			`small: must be a whole number, not the number 1.5`,
			`port: is -1, must be at least 0`,
			`long: must be a whole number, without quotes, not null`,
			`share: must be a number of no more than 64 bits, not the number 1e999`,
		}},
		{`{"need":"x","every":"5","times":["2s","10ms",3],"labels":{"a b":1}}`, []string{
			`every: "5" is not a duration; write a number and its unit (ms, s, m, h), like "500ms" or "1m30s"`,
			`times[1]: is 10ms, must be at least 1s`,
			`times[2]: must be a duration in quotes with its unit, like "3s" or "3ms", not the number 3`,
			`labels."a b": must be a text in quotes, not the number 1`,
		}},
		{`{"need":"x","addr":"192.0.2.1/32","prefixes":["192.0.2.10","192.0.2.10/32"],"on":"forces","families":["ipv4","ipx"]}`, []string{
			`addr: "192.0.2.1/32" is not an IP address, like "192.0.2.10"`,
			`prefixes[0]: "192.0.2.10" is not an IP address with its prefix length, like "192.0.2.10/24"`,
			`on: "forces" is not one of its values; did you mean "force"?`,
			`families[1]: "ipx" is not one of its values; there are "ipv4" and "ipv6"`,
		}},
		{`{"need":"x","tls":{},"nodes":[{"host":"a"},{"port":"x"},{"host":"localhost"}],"text":"odd"}`, []string{
			`tls.cert: is missing, and it is required: the certificate`,
			`nodes[1].host: is missing, and it is required: its name`,
			`nodes[1].port: must be a whole number, without quotes, not the text "x"`,
			`nodes[2].host: is this node`,
			`nodes[2]: is of no use`,
		}},
		{`{"need":"x","text":"odd"}`, []string{`text: is odd`}},
		{`{"need":"x","password":12345}`, []string{`password: must be a text in quotes, not what is given`}},
		{`[]`, []string{`settings must be a JSON object, not an array`}},
		{`{"need":"x"} {}`, []string{`settings are not JSON: more follows the object`}},
		{`{"need":`, []string{`settings are not JSON: unexpected EOF`}},
	} {
		_, err := describe[every](t).decode(test.config)
		var got []string
		for _, one := range apart(err) {
			got = append(got, one.Error())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: mistakes (-want +got):\n%s", test.config, diff)
		}
	}
}

// What New refuses, it names by its field.
func TestStructsThatAreNoSettings(t *testing.T) {
	type loop struct {
		Below []*struct {
			Again []loopPart `toml:"again" doc:"d"`
		} `toml:"below" doc:"d"`
	}
	for want, of := range map[string]any{
		"int is no struct of settings":        5,
		"Name: needs a tag toml with its key": struct{ Name string }{},
		"Name: needs a tag doc that says what it is for": struct {
			Name string `toml:"name"`
		}{},
		`Name: key "a.b": use letters, digits, _ and -`: struct {
			Name string `toml:"a.b" doc:"d"`
		}{},
		"name: has a tag toml but is not exported": struct {
			name string `toml:"name" doc:"d"`
		}{},
		"B: there is another setting x": struct {
			A string `toml:"x" doc:"d"`
			B string `toml:"x" doc:"d"`
		}{},
		"C: a setting cannot be a chan int": struct {
			C chan int `toml:"c" doc:"d"`
		}{},
		"A: a setting cannot be a interface {}": struct {
			A any `toml:"a" doc:"d"`
		}{},
		`N: tag default: n: is 5, must be at most 3`: struct {
			N int `toml:"n" doc:"d" max:"3" default:"5"`
		}{},
		`N: tag max: must be a whole number, not the number x`: struct {
			N int `toml:"n" doc:"d" max:"x"`
		}{},
		`S: tag min is for numbers and durations`: struct {
			S string `toml:"s" doc:"d" min:"3"`
		}{},
		`N: tag enum is for texts`: struct {
			N int `toml:"n" doc:"d" enum:"3"`
		}{},
		`S: tag default: s: "c" is not one of its values; there are "a" and "b"`: struct {
			S string `toml:"s" doc:"d" enum:"a|b" default:"c"`
		}{},
		`S: is required, so it can have no default`: struct {
			S string `toml:"s" doc:"d" required:"true" default:"c"`
		}{},
		`S: tag required is "yes", must be "true"`: struct {
			S string `toml:"s" doc:"d" required:"yes"`
		}{},
		`sdk.loopPart is part of itself`: loop{},
	} {
		_, err := settingsOf(reflect.TypeOf(of))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%T: got %v, want …%s", of, err, want)
		}
	}
	defer func() {
		if r := fmt.Sprint(recover()); !strings.Contains(r, "plugin odd: settings: field struct { Name string }.Name: needs a tag toml") {
			t.Errorf("New panics with %q", r)
		}
	}()
	New("odd", func(context.Context, struct{ Name string }, Host) (greeting, error) { return greeting{}, nil })
}

type loopPart struct {
	Again []loopPart `toml:"again" doc:"d"`
}

// The schema and the table say the same as decode does, in the author's order.
func TestSettingsAreDescribed(t *testing.T) {
	s := describe[every](t)
	var schema struct {
		Properties map[string]map[string]any
		Required   []string
		Additional any `json:"additionalProperties"`
	}
	text := s.schema()
	if err := json.Unmarshal([]byte(text), &schema); err != nil {
		t.Fatal(err)
	}
	if schema.Additional != false || !slices.Equal(schema.Required, []string{"need"}) || len(schema.Properties) != 19 {
		t.Errorf("schema is %s", text)
	}
	if text != describe[every](t).schema() {
		t.Error("the schema changes from time to time")
	}
	for key, want := range map[string]string{
		"need":     `{"description":"the one that must be there","minLength":1,"type":"string"}`,
		"port":     `{"default":80,"description":"where it listens","maximum":8080,"minimum":1,"type":"integer"}`,
		"long":     `{"description":"an exact one","type":"integer"}`,
		"small":    `{"description":"a small number","maximum":127,"minimum":-128,"type":"integer"}`,
		"families": `{"default":["ipv4","ipv6"],"description":"which families","items":{"enum":["ipv4","ipv6"],"type":"string"},"type":"array"}`,
		"labels":   `{"additionalProperties":{"type":"string"},"description":"for people","type":"object"}`,
		"password": `{"description":"how to get in","type":"string","writeOnly":true}`,
		"prefixes": `{"description":"what it holds","items":{"format":"ip-prefix","type":"string"},"type":"array"}`,
		"tls":      `{"additionalProperties":false,"description":"how it is kept private","properties":{"cert":{"description":"the certificate","minLength":1,"type":"string"}},"required":["cert"],"type":"object"}`,
	} {
		if got, _ := json.Marshal(schema.Properties[key]); string(got) != want {
			t.Errorf("schema of %s is %s, want %s", key, got, want)
		}
	}
	want := "| setting | value | default | what it is for |\n" +
		"|---|---|---|---|\n" +
		"| `mode` | \"a\" or \"b\" | `\"a\"` | which \\| of both |\n" +
		"| `every` | duration |  | how often (10ms to 1m) |\n" +
		"| `to` | array of IP addresses with their prefix lengths | required | where to |\n" +
		"| `retry` | table |  | how it tries again |\n" +
		"| `retry.count` | whole number, at least 1 | `3` | how often |\n" +
		"| `retry.wait` | duration | `\"1s\"` | how long between |\n" +
		"| `nodes` | array of tables |  | who is asked |\n" +
		"| `nodes[].host` | text | required | its name |\n" +
		"| `nodes[].port` | whole number | `3306` | its port |\n"
	type some struct {
		Mode  string         `toml:"mode" doc:"which | of both" enum:"a|b" default:"a"`
		Every time.Duration  `toml:"every" doc:"how often" min:"10ms" max:"1m"`
		To    []netip.Prefix `toml:"to" doc:"where to" required:"true"`
		Retry retry          `toml:"retry" doc:"how it tries again"`
		Nodes []node         `toml:"nodes" doc:"who is asked"`
	}
	got := SettingsTable(New("some", func(context.Context, some, Host) (greeting, error) { return greeting{}, nil }))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// The pattern of durations in the schema is what decode reads.
func TestDurationPattern(t *testing.T) {
	pattern := regexp.MustCompile(durationPattern)
	for _, text := range []string{"200ms", "1m30s", "0", "-1s", "+1.5h", ".5s", "5.s", "1us", "1µs", "1μs", "", "5", "s", "1", ".s", "1 s", "1d", "-", "00"} {
		_, err := time.ParseDuration(text)
		if got := pattern.MatchString(text); got != (err == nil) && text != "00" {
			t.Errorf("%q: the pattern says %t, decode says %v", text, got, err)
		}
	}
}

// Whatever settings are given, decode does not panic, and what it accepts has
// no key that it does not know.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"need":"x"}`, `{"need":"x","every":"1s","retry":{"count":1},"nodes":[{"host":"a"}]}`,
		`{"need":"x","tls":null,"labels":{"":""},"times":[[]],"prefixes":["::/0"]}`, `{"need":"x","long":1e5,"share":-0}`,
		`{"need":"x","Need":"y"}`, `{"need":"x","need":"y"}`, `{"need":"x","nodes":[{"host":"a","prot":1}]}`,
	} {
		f.Add(seed)
	}
	s := describe[every](f)
	var schema map[string]any
	if err := json.Unmarshal([]byte(s.schema()), &schema); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, config string) {
		v, err := s.decode(config)
		if err != nil {
			if mistakes := mistakes(err); len(mistakes) == 0 || mistakes[0].Message == "" {
				t.Errorf("a mistake says nothing: %q", err)
			}
			return
		}
		var given any
		if err := json.Unmarshal([]byte(config), &given); err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		if stranger := unknown(given, schema); stranger != "" {
			t.Errorf("accepted the unknown key %q", stranger)
		}
		if e := v.Interface().(every); e.Need == "" || e.Port < 1 || e.Port > 8080 || e.Retry.Count < 1 {
			t.Errorf("accepted %+v", e)
		}
	})
}

// unknown returns a key in given that the schema does not allow.
func unknown(given any, schema map[string]any) string {
	switch is := given.(type) {
	case []any:
		for _, one := range is {
			if stranger := unknown(one, schema["items"].(map[string]any)); stranger != "" {
				return stranger
			}
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(is)) {
			below, known := properties[key].(map[string]any)
			if !known {
				below, known = schema["additionalProperties"].(map[string]any)
			}
			if !known {
				return key
			}
			if stranger := unknown(is[key], below); stranger != "" {
				return stranger
			}
		}
	}
	return ""
}

func TestSuggest(t *testing.T) {
	for _, test := range []struct {
		word, want string
		known      []string
	}{
		{"adress", `did you mean "address"?`, []string{"port", "address"}},
		{"Time-Out", `did you mean "time_out"?`, []string{"time_out"}},
		{"opne", `did you mean "open"?`, []string{"open", "on"}},
		{"x", "there are none", nil},
		{"x", `the only one is "address"`, []string{"address"}},
		{"quux", `there are "a", "b" and "c"`, []string{"a", "b", "c"}},
		{strings.Repeat("x", 100), `the only one is "address"`, []string{"address"}},
	} {
		if got := suggest(test.word, test.known); got != test.want {
			t.Errorf("suggest %q of %q: got %s, want %s", test.word, test.known, got, test.want)
		}
	}
}

// greeting is a plugin that does nothing.
type greeting struct{}

func (greeting) Promote(context.Context, *Transition) error { return nil }
func (greeting) Demote(context.Context, *Transition) error  { return nil }
