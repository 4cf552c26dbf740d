package supervisor_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestSourceRules(t *testing.T) {
	for _, p := range list(t) {
		s := source{path: p.path(), fset: token.NewFileSet()}
		for _, file := range slices.Concat(p.GoFiles, p.TestGoFiles) {
			f, err := parser.ParseFile(s.fset, filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("parse %s: %v", file, err)
				continue
			}
			s.files = append(s.files, f)
		}
		complain(t, s.judge())
	}
}

// A source is the parsed files of one package and its inner tests.
type source struct {
	path  string // below the module
	fset  *token.FileSet
	files []*ast.File

	info   types.Info
	pkg    *types.Package
	faults []string
}

// absent imports nothing: identifiers of this package resolve without it.
type absent struct{}

func (absent) Import(string) (*types.Package, error) { return nil, errors.New("not loaded") }

// judge returns the complaints about the package.
func (s *source) judge() []string {
	s.info = types.Info{
		Defs:  map[*ast.Ident]types.Object{},
		Uses:  map[*ast.Ident]types.Object{},
		Types: map[ast.Expr]types.TypeAndValue{},
	}
	check := types.Config{Error: func(error) {}, Importer: absent{}, DisableUnusedImportCheck: true}
	s.pkg, _ = check.Check(s.path, s.fset, s.files, &s.info) // imports are missing, so there are errors
	for _, f := range s.files {
		if ast.IsGenerated(f) {
			continue
		}
		s.judgeMutations(f)
		if strings.HasSuffix(s.fset.File(f.Pos()).Name(), "_test.go") {
			continue
		}
		s.judgeDeclarations(f)
		s.judgeUses(f)
		s.judgeWords(f)
	}
	return s.faults
}

func (s *source) complain(n ast.Node, format string, args ...any) {
	at := s.fset.Position(n.Pos())
	s.faults = append(s.faults, fmt.Sprintf("%s/%s:%d: %s", s.path, filepath.Base(at.Filename), at.Line, fmt.Sprintf(format, args...)))
}

// judgeDeclarations finds init functions and package variables that only make
// sense when somebody changes them.
func (s *source) judgeDeclarations(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				s.complain(d, "init runs unasked: let main wire it")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				s.judgeVariable(d, spec.(*ast.ValueSpec))
			}
		}
	}
}

func (s *source) judgeVariable(d *ast.GenDecl, v *ast.ValueSpec) {
	if v.Names[0].Name == "_" {
		return // an assertion that a type has an interface
	}
	if len(v.Values) == 0 {
		linked := s.pkg.Name() == "main" && isName(v.Type, "string") // set by the linker, such as the version
		embedded := strings.Contains(directives(d.Doc)+directives(v.Doc), "//go:embed ")
		if !linked && !embedded {
			s.complain(v, "variable %s has no value, so it is state: give it to who needs it", v.Names[0].Name)
		}
		return
	}
	for _, value := range v.Values {
		ast.Inspect(value, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false
			case *ast.CompositeLit:
				if sel, ok := n.Type.(*ast.SelectorExpr); ok && (isName(sel.X, "sync") || isName(sel.X, "atomic")) {
					s.complain(n, "variable %s is state", v.Names[0].Name)
				}
			case *ast.CallExpr:
				if !s.makesConstant(n) {
					s.complain(n, "variable %s is made by a call whose result may change: make it where it is used", v.Names[0].Name)
				}
			}
			return true
		})
	}
}

// makesConstant reports whether a call is a conversion or makes something that
// nobody changes afterwards.
func (s *source) makesConstant(call *ast.CallExpr) bool {
	if s.info.Types[call.Fun].IsType() {
		return true
	}
	return slices.Contains([]string{
		"errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer", "template.Must", "template.New.Parse",
		"netip.MustParseAddr", "netip.MustParsePrefix", "reflect.TypeFor",
	}, callee(call))
}

// callee is the dotted name of what a call calls.
func callee(call *ast.CallExpr) string {
	switch fun := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.IndexExpr: // a generic function
		return callee(&ast.CallExpr{Fun: fun.X})
	case *ast.SelectorExpr:
		switch x := fun.X.(type) {
		case *ast.Ident:
			return x.Name + "." + fun.Sel.Name
		case *ast.CallExpr:
			return callee(x) + "." + fun.Sel.Name
		}
	}
	return ""
}

// judgeMutations finds what changes a package variable, in the package or, by
// assignment, in another one.
func (s *source) judgeMutations(f *ast.File) {
	change := func(n ast.Node, target ast.Expr) {
		id, foreign := s.origin(target)
		if id == nil {
			return
		}
		if foreign {
			s.complain(n, "changes a variable of package %s", id.Name)
			return
		}
		if v, ok := s.info.Uses[id].(*types.Var); ok && s.pkg != nil && v.Parent() == s.pkg.Scope() {
			s.complain(n, "changes package variable %s", id.Name)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, target := range n.Lhs {
					change(n, target)
				}
			}
		case *ast.IncDecStmt:
			change(n, n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				change(n, n.Key)
				change(n, n.Value)
			}
		case *ast.UnaryExpr:
			if _, literal := n.X.(*ast.CompositeLit); n.Op == token.AND && !literal {
				change(n, n.X)
			}
		case *ast.CallExpr:
			if name := callee(n); (name == "delete" || name == "clear" || name == "copy") && len(n.Args) > 0 {
				change(n, n.Args[0])
			}
		}
		return true
	})
}

// origin is the variable that an expression is a part of. Where that belongs
// to another package it is the package's name, and foreign is true.
func (s *source) origin(e ast.Expr) (id *ast.Ident, foreign bool) {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x, false
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok {
				if _, ok := s.info.Uses[id].(*types.PkgName); ok {
					return id, true
				}
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil, false
		}
	}
}

// judgeUses finds calls that only a program may make, cancellations without a
// cause and errors that begin with the obvious.
func (s *source) judgeUses(f *ast.File) {
	program := f.Name.Name == "main"
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.FuncDecl); ok {
			// A Main in a package is what a program hands itself over to.
			program = f.Name.Name == "main" || d.Name.Name == "Main"
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch name := callee(call); name {
		case "os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln":
			if !program {
				s.complain(call, "%s: only a program may end the process", name)
			}
		case "context.WithCancel":
			s.complain(call, "a cancellation needs its cause: context.WithCancelCause")
		case "fmt.Errorf", "errors.New":
			if text, ok := call.Args[0].(*ast.BasicLit); ok && strings.Contains(text.Value, "failed to ") {
				s.complain(call, "an error is a verb phrase, its subject and the cause, without \"failed to\"")
			}
		}
		return true
	})
}

// judgeWords finds exported names with a word that the project has another
// word for.
func (s *source) judgeWords(f *ast.File) {
	forbidden := strings.Fields("master slave epoch session instance manager")
	if !within(s.path, "supervisor/etcd") {
		forbidden = append(forbidden, "leader")
	}
	judge := func(id *ast.Ident) {
		if !id.IsExported() {
			return
		}
		for _, word := range words(id.Name) {
			if slices.Contains(forbidden, strings.TrimSuffix(word, "s")) {
				s.complain(id, "%s: %q is not a word of this project", id.Name, word)
			}
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			judge(d.Name)
		case *ast.GenDecl:
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					judge(n.Name)
				case *ast.ValueSpec:
					for _, id := range n.Names {
						judge(id)
					}
				case *ast.Field: // of a struct, or a method of an interface
					for _, id := range n.Names {
						judge(id)
					}
				}
				return true
			})
		}
	}
}

// words splits a name at its capitals: "HTTPLeaderID" is http, leader, id.
func words(name string) (found []string) {
	runes := []rune(name)
	start := 0
	for i := 1; i <= len(runes); i++ {
		if i < len(runes) {
			rises := unicode.IsUpper(runes[i]) && !unicode.IsUpper(runes[i-1])
			falls := unicode.IsUpper(runes[i]) && i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !rises && !falls {
				continue
			}
		}
		found = append(found, strings.ToLower(string(runes[start:i])))
		start = i
	}
	return found
}

func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// directives is the text of a comment with its directives, which Text leaves out.
func directives(doc *ast.CommentGroup) string {
	var b strings.Builder
	if doc != nil {
		for _, c := range doc.List {
			b.WriteString(c.Text + "\n")
		}
	}
	return b.String()
}

func TestSourceRulesComplain(t *testing.T) {
	for _, c := range []struct {
		name string
		path string
		src  string
		want string // part of the only complaint; empty for none
	}{
		{"sentinel", "x", `package x; import "errors"; var ErrGone = errors.New("gone")`, ""},
		{"assertion", "x", `package x; import "io"; type T struct{}; var _ io.Reader = (*T)(nil)`, ""},
		{"table", "x", `package x; var names = map[int]string{1: "one"}; func Name(i int) string { return names[i] }`, ""},
		{"pattern", "x", `package x; import "regexp"; var name = regexp.MustCompile("a+")`, ""},
		{"conversion", "x", `package x; type ID string; var one = ID("1")`, ""},
		{"version of a program", "x", "package main; var version string", ""},
		{"embedded file", "x", "package x; import _ \"embed\"\n//go:embed page.html\nvar page string", ""},
		{"local of the same name", "x", `package x; var n = 1; func F() int { n := 2; n = 3; n++; p := &n; return *p }`, ""},
		{"exit of a program", "x", `package main; import "os"; func main() { os.Exit(1) }`, ""},
		{"exit of what a program is handed over to", "x", `package x; import "os"; func Main() { os.Exit(1) }`, ""},
		{"leader in etcd", "supervisor/etcd", `package etcd; type LeaderLost struct{}`, ""},
		{"word inside another", "x", `package x; func Remastered() {}; type ReEpochal int`, ""},
		{"generated", "x", "// Code generated by x. DO NOT EDIT.\n\npackage x\n\nfunc init() {}", ""},

		{"init", "x", `package x; func init() {}`, "init runs unasked"},
		{"variable without value", "x", `package x; var current string`, "has no value"},
		{"several without value", "x", `package x; var a, b int`, "has no value"},
		{"mutex", "x", `package x; import "sync"; var mu = sync.Mutex{}`, "is state"},
		{"pointer to a mutex", "x", `package x; import "sync"; var mu = &sync.Mutex{}`, "is state"},
		{"channel", "x", `package x; var events = make(chan int)`, "made by a call"},
		{"constructor", "x", `package x; import "log/slog"; var log = slog.Default()`, "made by a call"},
		{"assigned", "x", `package x; var n = 1; func Set() { n = 2 }`, "changes package variable n"},
		{"counted", "x", `package x; var n = 1; func Set() { n++ }`, "changes package variable n"},
		{"entry assigned", "x", `package x; var m = map[int]int{}; func Set() { m[1] = 2 }`, "changes package variable m"},
		{"field assigned", "x", `package x; var v = struct{ a int }{}; func Set() { v.a = 2 }`, "changes package variable v"},
		{"entry deleted", "x", `package x; var m = map[int]int{}; func Set() { delete(m, 1) }`, "changes package variable m"},
		{"address taken", "x", `package x; var n = 1; func At() *int { return &n }`, "changes package variable n"},
		{"variable of another package", "x", `package x; import "net/http"; func F() { http.DefaultClient = nil }`, "variable of package http"},
		{"exit of a package", "x", `package x; import "os"; func Main() {}; func F() { os.Exit(1) }`, "only a program"},
		{"cancelled without cause", "x", `package x; import "context"; func F() { context.WithCancel(nil) }`, "needs its cause"},
		{"failed to", "x", `package x; import "fmt"; func F() error { return fmt.Errorf("failed to open: %w", nil) }`, "without"},
		{"leader", "x", `package x; type LeaderID int`, `"leader"`},
		{"masters", "x", `package x; func OldMasters() {}`, `"masters"`},
		{"slave in a field", "x", `package x; type T struct { Slave string }`, `"slave"`},
		{"epoch in a method", "x", `package x; type T interface { LastEpoch() int }`, `"epoch"`},
		{"manager in a constant", "x", `package x; const DefaultManager = 1`, `"manager"`},
	} {
		s := source{path: c.path, fset: token.NewFileSet()}
		f, err := parser.ParseFile(s.fset, "x.go", c.src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s.files = []*ast.File{f}
		got := s.judge()
		if c.want == "" {
			if len(got) != 0 {
				t.Errorf("%s: got %q, want no complaint", c.name, got)
			}
		} else if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: got %q, want one complaint with %q", c.name, got, c.want)
		}
	}
}
