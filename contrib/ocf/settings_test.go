package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

func TestSettings(t *testing.T) {
	h := sdktest.Own(t)
	b := newBench(t)
	type m = map[string]any
	own := m{"state": b.state}
	for _, c := range []struct {
		name   string
		config m
		want   string // empty when it is right; else part of what is wrong
	}{
		{"simple", m{"agent": "ocf:lab:Simple", "parameters": own}, ""},
		{"promotable", m{"agent": "ocf:lab:Role", "parameters": own, "kind": "promotable", "check_level": 10}, ""},
		{"promotable, and used as simple", m{"agent": "ocf:lab:Role", "parameters": own, "kind": "simple"}, ""},
		{"notify that does nothing", m{"agent": "ocf:lab:Stateful", "parameters": own}, ""},
		{"without notify", m{"agent": "ocf:lab:RoleNotify", "parameters": own, "without": []string{"notify"}}, ""},

		{"nothing", m{}, "agent: is missing"},
		{"no name", m{"agent": "IPaddr2"}, `agent: "IPaddr2" is not the name of an agent, such as "ocf:heartbeat:IPaddr2"`},
		{"out of its folder", m{"agent": "ocf:lab:../x"}, "is not the name of an agent"},
		{"no such agent", m{"agent": "ocf:lab:Simpl"}, "resource.d/lab/Simpl: install it (Debian: resource-agents"},
		{"one that does not tell about itself", m{"agent": "ocf:lab:Mute"}, "agent: meta-data: exit code 1"},
		{"one that cannot stop", m{"agent": "ocf:lab:Odd"}, "agent: ocf:lab:Odd has no action stop by its metadata"},
		{"a parameter misspelt", m{"agent": "ocf:lab:Simple", "parameters": m{"state": b.state, "pasword": "x"}}, "parameters.pasword: ocf:lab:Simple has no such parameter; there are password, state"},
		{"a parameter missing", m{"agent": "ocf:lab:Simple"}, "parameters.state: is missing, and ocf:lab:Simple requires it"},
		{"a parameter that the agent does not like", m{"agent": "ocf:lab:Simple", "parameters": m{"state": "/nonexistent"}}, "parameters: ocf:lab:Simple does not like them: exit code 6 (wrong configuration): state is no folder"},
		{"what is for deputy to say", m{"agent": "ocf:lab:Simple", "parameters": m{"state": b.state, "CRM_meta_interval": "0"}}, "parameters.CRM_meta_interval: is for deputy to say"},
		{"no name of a parameter", m{"agent": "ocf:lab:Simple", "parameters": m{"state": b.state, "a b": "0"}}, `"a b" cannot be the name of a parameter`},
		{"a number", m{"agent": "ocf:lab:Simple", "parameters": m{"state": 1}}, "parameters.state: must be a text in quotes"},
		{"not promotable", m{"agent": "ocf:lab:Simple", "parameters": own, "kind": "promotable"}, "kind: ocf:lab:Simple has no actions promote and demote"},
		{"notify", m{"agent": "ocf:lab:SimpleNotify", "parameters": own}, "agent: ocf:lab:SimpleNotify needs a Pacemaker cluster: its metadata has the action notify"},
		{"without what it does not use", m{"agent": "ocf:lab:Simple", "parameters": own, "without": []string{"notify"}}, `without[0]: ocf:lab:Simple does not use "notify"`},
		{"one that is known", m{"agent": "ocf:lab:mysql", "parameters": own, "without": []string{"notify"}}, "makes the server read-only in notify"},
	} {
		c.config["root"] = b.root
		err := h.Validate(t.Context(), wire.Setup{Service: "s", Node: "db1", Part: "ocf", Config: c.config})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: got %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// README.md has each setting, with its default, as the schema has it.
func TestReadmeHasTheSettings(t *testing.T) {
	d, err := sdktest.Own(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(d.Capabilities) != "[promote demote check follow]" {
		t.Errorf("it can %v", d.Capabilities)
	}
	sdktest.Readme(t, readme, d.Schema)
}

func TestTimesInMetadata(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20s": 20 * time.Second, "20": 20 * time.Second, " 5 ": 5 * time.Second, "1500ms": 1500 * time.Millisecond,
		"2min": 2 * time.Minute, "30sec": 30 * time.Second, "": 0, "soon": 0,
	} {
		if got := durationOf(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// What stands in for Pacemaker's tools takes scores, tells the node's name, and
// answers nothing else.
func TestTools(t *testing.T) {
	env := func(name string) string { return map[string]string{"OCF_RESKEY_CRM_meta_on_node": "db1"}[name] }
	for _, c := range []struct{ call, out, err string }{
		{"crm_attribute --promotion -v 10", "", ""},
		{"crm_attribute -p -D", "", ""},
		{"crm_attribute --promotion --update=10", "", ""},
		{"crm_master -l reboot -v 100", "", ""},
		{"crm_master -l reboot -G", "", "deputy keeps no promotion scores"},
		{"crm_attribute -N db1 -n x -v 1", "", "deputy is no Pacemaker cluster: it cannot answer crm_attribute -N db1 -n x -v 1"},
		{"crm_node -n", "db1\n", ""},
		{"crm_node -l", "", "cannot answer crm_node -l"},
		{"crm_mon", "", "cannot answer crm_mon"},
	} {
		args := strings.Fields(c.call)
		out, err := answerFor(args[0], args[1:], env)
		if out != c.out || (err == nil) != (c.err == "") || !strings.Contains(fmt.Sprint(err), c.err) {
			t.Errorf("%s: got %q, %v", c.call, out, err)
		}
	}
}

// Tools that another version has placed are replaced.
func TestToolsArePlacedAnew(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "crm_master")
	if err := os.Symlink("/nonexistent", old); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := placeTools(dir); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(answering)+len(clustered) {
		t.Errorf("there are %v", entries)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || to != self {
			t.Errorf("%s is %s, %v", e.Name(), to, err)
		}
	}
}
