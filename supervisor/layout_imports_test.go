package supervisor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Modules of others that packages here build on, and what each is for.
const (
	toml      = "github.com/BurntSushi/toml"
	etcd      = "go.etcd.io"
	zap       = "go.uber.org/zap" // etcd's log
	grpc      = "google.golang.org/grpc"
	protobuf  = "google.golang.org/protobuf"
	goplugin  = "github.com/hashicorp/go-plugin"
	hclog     = "github.com/hashicorp/go-hclog" // go-plugin's log
	systemd   = "github.com/coreos/go-systemd"
	dbus      = "github.com/godbus/dbus"
	bubbletea = "charm.land/bubbletea/v2"
	chromedp  = "github.com/chromedp" // a browser's wire
	cobra     = "github.com/spf13/cobra"
	pflag     = "github.com/spf13/pflag"
	run       = "github.com/oklog/run"
	metrics   = "github.com/prometheus/common" // what reads and writes metrics, for tests
	netlink   = "github.com/vishvananda/netlink"
	xsync     = "golang.org/x/sync"
	xsys      = "golang.org/x/sys"
	xterm     = "golang.org/x/term"
)

// ours is every package of this module.
const ours = module

// An arrow says what the packages at one place may import besides the
// standard library: a package itself and what lies below a module of others.
type arrow struct {
	from   string   // below the module; NAME/* is any folder below NAME
	own    []string // packages of this module; {ours} is all of them
	others []string // modules of others: its own technology
	any    bool     // any module of others, but etcd
}

// arrows is the import table of the architecture. The first that fits counts.
// A package that none fits is not in the tree: add it there first.
func arrows() []arrow {
	seam := []string{"sdk", "supervisor"}
	return []arrow{
		{from: "sdk", own: []string{"sdk/manual", "sdk/proto"}, others: []string{goplugin, hclog, grpc, protobuf}},
		{from: "sdk/manual"},
		{from: "sdk/proto", others: []string{grpc, protobuf}},
		{from: "sdk/wire", own: []string{"sdk", "sdk/proto"}, others: []string{grpc, protobuf}},
		{from: "sdk/sdktest", own: []string{"sdk", "sdk/manual", "sdk/proto", "sdk/wire"}, others: []string{goplugin, grpc, protobuf}},

		{from: "supervisor", own: []string{"sdk"}, others: []string{xsync}},
		{from: "supervisor/boottime", own: seam, others: []string{xsys}},
		{from: "supervisor/config", own: seam, others: []string{toml}},
		{from: "supervisor/control", own: seam, others: []string{xsys, xsync}},
		{from: "supervisor/etcd", own: seam, others: []string{etcd, grpc, zap, xsync}},
		{from: "supervisor/etcd/etcdtest", own: []string{"sdk", "supervisor", "supervisor/etcd"}, others: []string{etcd, grpc, zap, netlink, xsync, xsys}},
		{from: "supervisor/http", own: seam, others: []string{metrics, xsync}},
		{from: "supervisor/notify", own: seam},
		{from: "supervisor/plugin", own: append(slices.Clone(seam), "sdk/proto", "sdk/wire"), others: []string{goplugin, hclog, grpc, protobuf, xsys, xsync}},
		{from: "supervisor/rundir", own: seam, others: []string{xsys}},
		{from: "supervisor/supervisortest", own: seam, others: []string{xsync, "github.com/google/go-cmp"}},
		{from: "supervisor/systemd", own: seam, others: []string{systemd, dbus, xsys}},
		{from: "supervisor/deputy", own: []string{ours}, others: []string{bubbletea, cobra, pflag, run, xsys, xsync, xterm}},

		{from: "plugins/*", own: []string{"sdk", "plugins/endpoint", "plugins/kernelguard"}, any: true}, // libraries of plugins, themselves none
		{from: "contrib/haproxy", own: []string{"supervisor/etcd/etcdtest"}},                            // its test, on a cluster of its own
		{from: "contrib/*", own: []string{"sdk", "contrib/agents"}, any: true},                          // a library, as above
		{from: "examples/plugin-go", own: []string{"sdk"}},
		{from: "examples/plugin-go/*", own: []string{"sdk"}},
		{from: "examples/*", own: []string{ours}, others: []string{etcd, zap, grpc, netlink, xsys, xsync, xterm}},
		{from: "packaging/*", own: []string{ours}, others: []string{etcd, zap, grpc, "github.com/go-sql-driver/mysql", xsys, xsync}},
	}
}

// forTests is what any test may import on top.
func forTests() (own, others []string) {
	return []string{"supervisor/supervisortest", "sdk/sdktest", "sdk/wire", "plugins/endpoint/endpointtest", "plugins/kernelguard/netlab"},
		[]string{"github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "github.com/vishvananda", chromedp, xsync, xsys}
}

func TestWhoImportsWhom(t *testing.T) {
	for _, p := range list(t) {
		complain(t, importFaults(p))
	}
}

// importFaults judges what one package and its tests import.
func importFaults(p listed) (faults []string) {
	path := p.path()
	i := slices.IndexFunc(arrows(), func(a arrow) bool { return a.fits(path) })
	if i < 0 {
		return []string{path + ": not in the tree: a new place needs a line in the import table"}
	}
	a := arrows()[i]
	for _, imp := range p.Imports {
		if !a.may(imp) {
			faults = append(faults, fmt.Sprintf("%s: may not import %s", path, imp))
		}
	}
	// A test may also import the package that it tests and, for the trees that
	// tests see together, what the package below it brings.
	tests := a
	own, others := forTests()
	tests.own = slices.Concat(a.own, own, []string{path, path + "/" + lastWord(path) + "test"})
	tests.others = slices.Concat(a.others, others)
	for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
		if !tests.may(imp) {
			faults = append(faults, fmt.Sprintf("%s: its tests may not import %s", path, imp))
		}
	}
	// What an author's plugin is built from stays small, however it is reached.
	if within(path, "sdk") || within(path, "plugins") {
		for _, dep := range p.Deps {
			for _, heavy := range []string{etcd, module + "/supervisor"} {
				if within(dep, heavy) {
					faults = append(faults, fmt.Sprintf("%s: drags in %s", path, dep))
				}
			}
		}
	}
	if within(path, "sdk") {
		for _, dep := range p.Deps {
			for _, heavy := range []string{toml, systemd, dbus} {
				if within(dep, heavy) {
					faults = append(faults, fmt.Sprintf("%s: drags in %s", path, dep))
				}
			}
		}
	}
	// The role machine does no I/O of its own.
	if path == "supervisor" {
		for _, imp := range p.Imports {
			if slices.Contains([]string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "database/sql"}, imp) {
				faults = append(faults, fmt.Sprintf("%s: does I/O of its own with %s", path, imp))
			}
		}
	}
	// Flags and signals belong to programs; sdk.Main is one for its author.
	if p.Name != "main" && path != "sdk" {
		for _, imp := range p.Imports {
			if imp == "flag" || imp == "os/signal" || within(imp, cobra) {
				faults = append(faults, fmt.Sprintf("%s: only a program may import %s", path, imp))
			}
		}
	}
	return faults
}

func (a arrow) fits(path string) bool {
	if dir, ok := strings.CutSuffix(a.from, "/*"); ok {
		return strings.HasPrefix(path, dir+"/")
	}
	return path == a.from
}

func (a arrow) may(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	if !strings.Contains(first, ".") {
		return true // the standard library
	}
	if within(imp, module) {
		below := strings.TrimPrefix(imp, module+"/")
		return slices.Contains(a.own, ours) || slices.Contains(a.own, below)
	}
	if a.any {
		return !within(imp, etcd)
	}
	return slices.ContainsFunc(a.others, func(m string) bool { return within(imp, m) })
}

// within reports whether a package is the one named or lies below it.
func within(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

func lastWord(path string) string { return path[strings.LastIndex(path, "/")+1:] }

func TestImportRulesComplain(t *testing.T) {
	at := func(path string, imports ...string) listed {
		return listed{ImportPath: module + "/" + path, Name: lastWord(path), Imports: imports}
	}
	for _, c := range []struct {
		name string
		p    listed
		want string // part of the only complaint; empty for none
	}{
		{"etcd has its client", at("supervisor/etcd", "context", module+"/supervisor", "go.etcd.io/etcd/client/v3"), ""},
		{"role machine has the contract", at("supervisor", "context", module+"/sdk"), ""},
		{"deputy sees siblings", at("supervisor/deputy", module+"/supervisor/etcd", module+"/supervisor/config", run), ""},
		{"plugin has its technology", at("plugins/vip", module+"/sdk", "github.com/vishvananda/netlink"), ""},
		{"test has its fake", listed{ImportPath: module + "/supervisor", TestImports: []string{module + "/supervisor/supervisortest"}}, ""},
		{"test has its own servers", listed{ImportPath: module + "/supervisor/etcd", XTestImports: []string{module + "/supervisor/etcd/etcdtest"}}, ""},

		{"sibling", at("supervisor/etcd", module+"/supervisor/config"), "may not import"},
		{"sibling in a test", listed{ImportPath: module + "/supervisor/config", TestImports: []string{module + "/supervisor/etcd"}}, "its tests may not import"},
		{"adapter seen from the role machine", at("supervisor", module+"/supervisor/etcd"), "may not import"},
		{"fake outside a test", at("supervisor/control", module+"/supervisor/supervisortest"), "may not import"},
		{"contract depends on its host", at("sdk", module+"/supervisor"), "may not import"},
		{"etcd beside its place", at("supervisor/control", "go.etcd.io/etcd/client/v3"), "may not import"},
		{"etcd in the wiring", at("supervisor/deputy", "go.etcd.io/etcd/client/v3"), "may not import"},
		{"run inside a package", at("supervisor/control", run), "may not import"},
		{"plugin imports the supervisor", at("plugins/vip", module+"/supervisor"), "may not import"},
		{"plugin imports a plugin", at("plugins/vip", module+"/plugins/guard"), "may not import"},
		{"plugin on etcd", at("plugins/vip", "go.etcd.io/etcd/client/v3"), "may not import"},
		{"place unknown", at("supervisor/extra", "context"), "not in the tree"},
		{"contract drags in etcd", listed{ImportPath: module + "/sdk", Deps: []string{"go.etcd.io/etcd/api/v3/mvccpb"}}, "drags in"},
		{"contract drags in TOML", listed{ImportPath: module + "/sdk/sdktest", Deps: []string{toml}}, "drags in"},
		{"contract drags in systemd", listed{ImportPath: module + "/sdk", Deps: []string{systemd + "/v22/daemon"}}, "drags in"},
		{"plugin drags in the supervisor", listed{ImportPath: module + "/plugins/vip", Deps: []string{module + "/supervisor"}}, "drags in"},
		{"role machine opens files", at("supervisor", "os"), "I/O of its own"},
		{"package catches signals", at("supervisor/control", "os/signal"), "only a program"},
	} {
		got := importFaults(c.p)
		if c.want == "" {
			if len(got) != 0 {
				t.Errorf("%s: got %q, want no complaint", c.name, got)
			}
		} else if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: got %q, want one complaint with %q", c.name, got, c.want)
		}
	}
}
