package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// byHand runs a plugin by hand; all it does is what its settings' name says.
func byHand(t *testing.T, ctx context.Context, in string, args ...string) (exit int, out, err string) {
	t.Helper()
	p := sdk.New("hand", func(_ context.Context, c settings, h sdk.Host) (*part, error) {
		act := func(ctx context.Context, tr *sdk.Transition) error {
			switch c.Name {
			case "already":
				return sdk.ErrAlready
			case "unchanged":
				return sdk.Unchanged(errors.New("no carrier"))
			case "later":
				return sdk.Retry(errors.New("busy"), 5*time.Second)
			case "refused":
				return sdk.Refuse(errors.New("not ours"))
			case "odd":
				return errors.New("odd")
			case "slow":
				<-ctx.Done()
				return context.Cause(ctx)
			}
			h.Log.Info("logged", "n", c.Count)
			sdk.Progress(ctx, 50, "half of it")
			sdk.Note(ctx, "%s %s %d %s", tr.Action, tr.Mode, tr.Term, tr.Primary.Node)
			return nil
		}
		return &part{
			promote: act, demote: act, follow: act,
			check: func(_ context.Context, role sdk.Role) (sdk.Health, error) {
				if c.Name == "odd" {
					return sdk.Health{}, errors.New("odd")
				}
				return sdk.Health{Fit: role == sdk.RolePrimary, Detail: "seen", Position: "7"}, nil
			},
			renew: func(_ context.Context, until sdk.Instant) error {
				if left := until.Sub(sdk.Now()); left < 4*time.Second || left > 5*time.Second {
					return errors.New("until " + left.String())
				}
				return nil
			},
		}, nil
	}, sdk.Doc("# Does what is said.\n\nAnd more."), sdk.Version("1.2"), sdk.ForcedBound(time.Second))
	var outs, errs strings.Builder
	exit = sdk.ByHand(ctx, p, strings.NewReader(in), &outs, &errs, args...)
	return exit, outs.String(), errs.String()
}

func TestByHand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(file, []byte(`{"name":"a","count":3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args     string
		in       string
		exit     int
		out, err string // parts of the outputs; empty: nothing
	}{
		{"", "", 0, `use = "hand"`, ""},
		{"--help", "", 0, "Does what is said.\n\nThis is the plugin \"hand\"", ""},
		{"--help", "", 0, "/usr/libexec/deputy/plugins/deputy-plugin-hand", ""},
		{"--help", "", 0, "count    whole number, at least 1  how many\n         default 1\n", ""},
		{"--version", "", 0, "hand 1.2\n", ""},
		{"descripe", "", 64, "", `unknown command "descripe"; did you mean "describe"?`},
		{"describe", "", 0, "hand 1.2\n\nDoes what is said.\n\nAnd more.\n\nCan ", ""},
		{"describe", "", 0, "A forced demotion that is given 1s is done in that time.", ""},
		{"describe -o man", "", 0, "deputy\\-plugin\\-hand \\- Does what is said\n", ""},
		{"describe -o markdown", "", 0, "| `count` | whole number, at least 1 | `1` | how many |", ""},
		{"describe -o schema", "", 0, "{\n  \"title\": \"Settings of the plugin hand\",\n  \"description\": \"Does what is said\",\n  \"$schema\": ", ""},
		{"describe -o json", "", 0, `"forced_bound_ns": 1000000000`, ""},
		{"describe -o xml", "", 64, "", `unknown form "xml"`},
		{"describe --help", "", 0, "usage: deputy-plugin-hand describe", ""},
		{"describe --form", "", 64, "", "not defined"},
		{"describe x", "", 64, "", "usage:"},

		{"validate -", `{"name":"a"}`, 0, "", ""},
		{"validate " + file, "", 0, "", ""},
		{"validate -", `{"nam":"a","count":"x"}`, 78, "", "name: is missing, and it is required: its name\n" +
			"count: must be a whole number, without quotes, not the text \"x\"\nnam: unknown key; did you mean \"name\"?\n"},
		{"validate -", `nonsense`, 78, "", "settings are not JSON"},
		{"validate /nonexistent", "", 78, "", "read settings: open /nonexistent"},
		{"validate", "", 64, "", "usage:"},

		{"call promote --settings - --term 7", `{"name":"a","count":3}`, 0, "done: promote planned 7 ", "half of it"},
		{"call promote --settings " + file, "", 0, "done", "msg=logged n=3"},
		{"call --settings - --mode forced demote", `{"name":"a"}`, 0, "done: demote forced 1 ", "50% half"},
		{"call follow --settings - --primary n2", `{"name":"a"}`, 0, "done: follow planned 1 n2", "half"},
		{"call promote --settings -", `{"name":"already"}`, 10, "already\n", ""},
		{"call promote --settings -", `{"name":"unchanged"}`, 75, "failed-unchanged: no carrier\n", ""},
		{"call promote --settings -", `{"name":"later"}`, 75, "failed-unchanged: busy (not again before 5s)\n", ""},
		{"call promote --settings -", `{"name":"refused"}`, 20, "refused: not ours\n", ""},
		{"call promote --settings -", `{"name":"odd"}`, 1, "failed-unknown: odd\n", ""},
		{"call promote --settings - --timeout 10ms", `{"name":"slow"}`, 1, "failed-unknown: not done within 10ms\n", ""},
		{"call fence --settings - --primary n3", `{"name":"a"}`, 20, "refused: no power over n3\n", ""},
		{"call promote --settings -", `{"name":""}`, 78, "", "name: is empty"},
		{"call promote", "", 78, "", "name: is missing"},
		{"call check --settings -", `{"name":"a"}`, 0, "fit: seen\nposition 7\n", ""},
		{"call check --settings - --role standby", `{"name":"a"}`, 2, "not fit: seen\n", ""},
		{"call check --settings -", `{"name":"odd"}`, 3, "no answer: odd\n", ""},
		{"call renew --settings - --until-in 5s", `{"name":"a"}`, 0, "done\n", ""},
		{"call renew --settings - --until-in 1s", `{"name":"a"}`, 1, "", "until "},
		{"call rank --settings - --mine 22 b=1 a=333", `{"name":"a"}`, 0, "a behind\nb ahead\n", ""},
		{"call rank --settings - --mine 22 b", `{"name":"a"}`, 64, "", `"b" is not NODE=POSITION`},
		{"call", "", 64, "", "usage:"},
		{"call promot", "", 64, "", `hand cannot promot; did you mean "promote"?`},
		{"call promote now", "", 64, "", `unknown argument "now"`},
		{"call promote --mode gently", "", 64, "", `unknown mode "gently"`},
		{"call promote --term x", "", 64, "", "invalid value"},
		{"call --help", "", 0, "-until-in", ""},
	} {
		exit, out, err := byHand(t, t.Context(), test.in, strings.Fields(test.args)...)
		fits := func(got, want string) bool { return strings.Contains(got, want) && (want != "" || got == "") }
		if exit != test.exit || !fits(out, test.out) || !fits(err, test.err) {
			t.Errorf("%s <<< %s: exit code %d, want %d\nprints %q, want %q\nsays %q, want %q", test.args, test.in, exit, test.exit, out, test.out, err, test.err)
		}
	}
}

// What a binary says of itself by hand is what it says over the wire.
func TestDescribedAlike(t *testing.T) {
	_, out, _ := byHand(t, t.Context(), "", "describe", "-o", "json")
	var got wire.Description
	in := json.NewDecoder(strings.NewReader(out))
	in.DisallowUnknownFields()
	if err := in.Decode(&got); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := &hosted{t: t}
		h.connect(sdk.New("hand", func(context.Context, settings, sdk.Host) (*part, error) { return &part{}, nil },
			sdk.Doc("# Does what is said.\n\nAnd more."), sdk.Version("1.2"), sdk.ForcedBound(time.Second)))
		want, err := h.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, schema := range []*json.RawMessage{&got.Schema, &want.Schema} {
			var any any
			if err := json.Unmarshal(*schema, &any); err != nil {
				t.Fatal(err)
			}
			*schema, _ = json.Marshal(any) // without its spaces
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("by hand %+v, over the wire %+v", got, want)
		}
	})
}

// Who interrupts an act sees what came of it.
func TestInterruptedByHand(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { interrupt(errors.New("interrupt signal received")) })
	exit, out, _ := byHand(t, ctx, `{"name":"slow"}`, "call", "promote", "--settings", "-")
	if exit != 1 || out != "failed-unknown: interrupt signal received\n" {
		t.Errorf("exit code %d, prints %q", exit, out)
	}
}

func TestTestByHand(t *testing.T) {
	t.Setenv("DEPUTY", filepath.Join(t.TempDir(), "deputy"))
	exit, _, err := byHand(t, t.Context(), "", "test")
	if exit != 1 || !strings.Contains(err, "install it, or name its binary in $DEPUTY") {
		t.Errorf("exit code %d: %s", exit, err)
	}
}
