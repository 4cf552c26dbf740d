package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

// where lists every node below n as path:line:column.
func where(n *node, path string, out *[]string) {
	for _, key := range slices.Sorted(maps.Keys(n.keys)) {
		below := n.keys[key]
		p := strings.TrimPrefix(path+"."+key, ".")
		*out = append(*out, fmt.Sprintf("%s:%d:%d", p, below.at.line, below.at.column))
		where(below, p, out)
	}
	for i, below := range n.elems {
		p := fmt.Sprintf("%s[%d]", path, i)
		*out = append(*out, fmt.Sprintf("%s:%d:%d", p, below.at.line, below.at.column))
		where(below, p, out)
	}
}

func TestPositions(t *testing.T) {
	for name, test := range map[string]struct {
		src  string
		want []string
	}{
		"plain": {"a = 1\n  b=\"x\"\n", []string{"a:1:1", "b:2:3"}},
		"dotted": {
			"a.b.c = 1\na . d = 2",
			[]string{"a:1:1", "a.b:1:3", "a.b.c:1:5", "a.d:2:5"},
		},
		"tables": {
			"[a]\nb = 1\n[ a.c ] # [x]\nd = 2\n[e.f]\ng = 3",
			[]string{"a:1:2", "a.b:2:1", "a.c:3:5", "a.c.d:4:1", "e:5:2", "e.f:5:4", "e.f.g:6:1"},
		},
		"arrays of tables": {
			"[[p]]\na = 1\n[p.c]\nd = 2\n[[p]]\na = 3\n[[p.q]]\nz = 1\n[[p.q]]\nz = 2",
			[]string{
				"p:1:3", "p[0]:1:3", "p[0].a:2:1", "p[0].c:3:4", "p[0].c.d:4:1",
				"p[1]:5:3", "p[1].a:6:1", "p[1].q:7:5", "p[1].q[0]:7:5", "p[1].q[0].z:8:1", "p[1].q[1]:9:5", "p[1].q[1].z:10:1",
			},
		},
		"inline tables": {
			"a = { b = 1, c.d = { e = 'x' }, }\nf = [{ g = 1 }, { g = [1,\n 2] }]",
			[]string{
				"a:1:1", "a.b:1:7", "a.c:1:14", "a.c.d:1:16", "a.c.d.e:1:22",
				"f:2:1", "f[0]:2:6", "f[0].g:2:8", "f[1]:2:17", "f[1].g:2:19", "f[1].g[0]:2:24", "f[1].g[1]:3:2",
			},
		},
		"inline tables over lines": {
			"a = {\n  b = 1, # }\n  c = 2,\n}\nd = 3",
			[]string{"a:1:1", "a.b:2:3", "a.c:3:3", "d:5:1"},
		},
		"quoted keys": {
			"\"a b\".'c.d' = 1\n[\"e\\u0066\".\"]\"]\ng = 2\n\"=\" = 3",
			[]string{"a b:1:1", "a b.c.d:1:7", "ef:2:2", "ef.]:2:12", "ef.].=:4:1", "ef.].g:3:1"},
		},
		"strings that look like keys": {
			"a = \"[x]\\\" b = 1\"\nc = '[[y]] \\'\nd = \"\"\"\ne = 1 \\\"\"\"\n\"quoted\"\"\"\"\nf = '''\n[z]\n''''\ng = \"\"\nh = ''",
			[]string{"a:1:1", "c:2:1", "d:3:1", "f:6:1", "g:9:1", "h:10:1"},
		},
		"comments": {
			"# a = 1\nb = [ # c = 2 ]\n  \"#\", # d\n  '2',\n] # e = 3\nf = 1 # g = 4",
			[]string{"b:2:1", "b[0]:3:3", "b[1]:4:3", "f:6:1"},
		},
		"characters, not bytes": {"k = { \"ä\" = 'öü', b = 1 }", []string{"k:1:1", "k.b:1:19", "k.ä:1:7"}},
		"other line ends":       {"a = 1\r\n\r\n[b]\r\nc = 2020-01-01 00:00:00\r\nd = 1.5\r\n", []string{"a:1:1", "b:3:2", "b.c:4:1", "b.d:5:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var plain map[string]any
			if _, err := toml.Decode(test.src, &plain); err != nil {
				t.Fatalf("the example is not TOML: %v", err)
			}
			var got []string
			where(scan("f", test.src), "", &got)
			slices.Sort(got)
			slices.Sort(test.want)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if lost := unplaced(plain, scan("f", test.src), ""); lost != nil {
				t.Errorf("values without a position: %q", lost)
			}
		})
	}
}

// unplaced lists the values whose position the scanner did not find.
func unplaced(v any, n *node, path string) (lost []string) {
	if n == nil {
		return []string{path}
	}
	elem := func(i int) *node {
		if i < len(n.elems) {
			return n.elems[i]
		}
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		for k, below := range v {
			lost = append(lost, unplaced(below, n.keys[k], path+"."+k)...)
		}
	case []any:
		for i, below := range v {
			lost = append(lost, unplaced(below, elem(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case []map[string]any:
		for i, below := range v {
			lost = append(lost, unplaced(below, elem(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return lost
}
