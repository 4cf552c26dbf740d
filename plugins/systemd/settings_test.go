package main

import (
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

// hosted starts the plugin; it needs no systemd to be told its settings.
func hosted(t *testing.T) sdktest.Hosted {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	return sdktest.Own(t)
}

func TestSettings(t *testing.T) {
	h := hosted(t)
	type m = map[string]any
	units := func(all ...string) m { return m{"units": all} }
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else the key and part of what is wrong
	}{
		{"one", units("a.service"), ""},
		{"several", units("a.service", "b@x.service", `dev-disk-by\x2dlabel.service`), ""},
		{"everything", m{"units": []string{"a.service"}, "settle": "0s", "stop_timeout": "5s", "forced": "stop", "guard": false}, ""},

		{"nothing", m{}, "units: is missing"},
		{"none", m{"units": []string{}}, "units: is empty"},
		{"without its kind", units("a"), `"a": must be the whole name of a service unit`},
		{"of another kind", units("a.service", "a.timer"), `units[1]: "a.timer": must be the whole name of a service unit`},
		{"template", units("a@.service"), `"a@.service": is a template`},
		{"path", units("../a.service"), `"../a.service": is no name of a unit`},
		{"twice", units("a.service", "b.service", "a.service"), "units[2]: a.service is named twice"},
		{"deputy's own", units("deputy@orders.service"), "is a unit of deputy itself"},
		{"deputy's own gate", units("deputy-lease@orders.service"), "is a unit of deputy itself"},
		{"called like deputy", units("deputyd.service"), ""},
		{"settles too long", m{"units": []string{"a.service"}, "settle": "2m"}, "settle: "},
		{"forced otherwise", m{"units": []string{"a.service"}, "forced": "term"}, "forced: "},
		{"unknown", m{"units": []string{"a.service"}, "unit": "a.service"}, `did you mean "units"?`},
	} {
		err := h.Validate(t.Context(), wire.Setup{Service: "orders", Node: "db1", Part: "units", Config: c.config})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := hosted(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.ForcedBound != forcedBound {
		t.Errorf("it promises to demote within %s, want %s", d.ForcedBound, forcedBound)
	}
	sdktest.Readme(t, readme, d.Schema)
}
