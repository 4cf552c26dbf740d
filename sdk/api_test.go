package sdk_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// An apiPackage is the source of a package whose API is promised.
type apiPackage struct {
	name  string
	files []*ast.File
}

// promised are the packages that authors build on.
func promised(t *testing.T) []apiPackage {
	t.Helper()
	return []apiPackage{parsed(t, "sdk", "."), parsed(t, "sdktest", "sdktest")}
}

func parsed(t *testing.T, name, dir string) apiPackage {
	t.Helper()
	files, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	p := apiPackage{name: name}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), dir+"/"+file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		p.files = append(p.files, f)
	}
	return p
}

// A symbol is one exported thing.
type symbol struct {
	line string // as the API file has it
	doc  string // what is said of it, at it or at its line's end
}

// symbols returns what a package exports: one for each constant, variable,
// function, type, method and field.
func (p apiPackage) symbols() []symbol {
	var all []symbol
	add := func(doc []*ast.CommentGroup, format string, args ...any) {
		s := symbol{line: "pkg " + p.name + ", " + fmt.Sprintf(format, args...)}
		for _, d := range doc {
			s.doc += d.Text()
		}
		all = append(all, s)
	}
	for _, f := range p.files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				recv, ok := receiver(d)
				switch {
				case !d.Name.IsExported() || !ok:
				case recv != "":
					add([]*ast.CommentGroup{d.Doc}, "method (%s) %s%s", recv, d.Name.Name, signature(d.Type))
				default:
					add([]*ast.CommentGroup{d.Doc}, "func %s%s", d.Name.Name, signature(d.Type))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for i, id := range spec.Names {
							if !id.IsExported() {
								continue
							}
							line := d.Tok.String() + " " + id.Name
							if spec.Type != nil {
								line += " " + expression(spec.Type)
							}
							if d.Tok == token.CONST && i < len(spec.Values) {
								line += " = " + expression(spec.Values[i])
							}
							add([]*ast.CommentGroup{spec.Doc, spec.Comment, alone(d)}, "%s", line)
						}
					case *ast.TypeSpec:
						if spec.Name.IsExported() {
							addType(add, spec, []*ast.CommentGroup{spec.Doc, spec.Comment, alone(d)})
						}
					}
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b symbol) int { return cmp.Compare(a.line, b.line) })
	return all
}

// alone is the doc of a declaration of one thing, which is that thing's.
func alone(d *ast.GenDecl) *ast.CommentGroup {
	if len(d.Specs) == 1 {
		return d.Doc
	}
	return nil
}

func addType(add func([]*ast.CommentGroup, string, ...any), spec *ast.TypeSpec, doc []*ast.CommentGroup) {
	name := spec.Name.Name + parameters(spec.TypeParams)
	if spec.Assign != 0 {
		name += " ="
	}
	var kind string
	var members *ast.FieldList
	switch x := spec.Type.(type) {
	case *ast.StructType:
		kind, members = "struct", x.Fields
	case *ast.InterfaceType:
		kind, members = "interface", x.Methods
	default:
		add(doc, "type %s %s", name, expression(spec.Type))
		return
	}
	add(doc, "type %s %s", name, kind)
	hidden := false
	for _, m := range members.List {
		said := []*ast.CommentGroup{m.Doc, m.Comment}
		tag := ""
		if m.Tag != nil {
			tag = " " + m.Tag.Value
		}
		if len(m.Names) == 0 {
			add(doc, "type %s %s, embedded %s%s", name, kind, expression(m.Type), tag) // the type's doc is enough
		}
		for _, id := range m.Names {
			f, method := m.Type.(*ast.FuncType)
			switch {
			case !id.IsExported():
				hidden = true
			case method && kind == "interface":
				add(said, "type %s %s, %s%s", name, kind, id.Name, signature(f))
			default:
				add(said, "type %s %s, %s %s%s", name, kind, id.Name, expression(m.Type), tag)
			}
		}
	}
	if hidden {
		add(doc, "type %s %s, and what is not exported", name, kind)
	}
}

// receiver is the type of a method's receiver, empty for a function; ok is false
// where that type is not exported.
func receiver(d *ast.FuncDecl) (name string, ok bool) {
	if d.Recv == nil {
		return "", true
	}
	name = expression(d.Recv.List[0].Type)
	return name, ast.IsExported(strings.TrimPrefix(name, "*"))
}

// signature is a function's type without the names of what it takes: those may
// change.
func signature(f *ast.FuncType) string {
	s := parameters(f.TypeParams) + "(" + strings.Join(unnamed(f.Params), ", ") + ")"
	switch results := unnamed(f.Results); len(results) {
	case 0:
		return s
	case 1:
		return s + " " + results[0]
	default:
		return s + " (" + strings.Join(results, ", ") + ")"
	}
}

// parameters are the type parameters, with their names: the rest speaks of them.
func parameters(list *ast.FieldList) string {
	if list == nil {
		return ""
	}
	var all []string
	for _, f := range list.List {
		for _, id := range f.Names {
			all = append(all, id.Name+" "+expression(f.Type))
		}
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func unnamed(list *ast.FieldList) (all []string) {
	if list == nil {
		return nil
	}
	for _, f := range list.List {
		for range max(1, len(f.Names)) {
			all = append(all, expression(f.Type))
		}
	}
	return all
}

// expression is source text in one line, and all of it: go/types leaves out what
// is inside of braces.
func expression(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.FuncType:
		return "func" + signature(x)
	case *ast.StarExpr:
		return "*" + expression(x.X)
	case *ast.ArrayType:
		if x.Len == nil {
			return "[]" + expression(x.Elt)
		}
	case *ast.MapType:
		return "map[" + expression(x.Key) + "]" + expression(x.Value)
	case *ast.Ellipsis:
		return "..." + expression(x.Elt)
	case *ast.InterfaceType:
		var all []string
		for _, m := range x.Methods.List {
			if f, ok := m.Type.(*ast.FuncType); ok {
				all = append(all, m.Names[0].Name+signature(f))
			} else {
				all = append(all, expression(m.Type))
			}
		}
		slices.Sort(all)
		return "interface{ " + strings.Join(all, "; ") + " }"
	}
	return types.ExprString(e)
}

// What authors build on changes only where somebody has said so: the file is part
// of each change of it.
func TestTheAPIIsAsItsFileHasIt(t *testing.T) {
	const file = "testdata/api.txt"
	var b strings.Builder
	for _, p := range promised(t) {
		for _, s := range p.symbols() {
			b.WriteString(s.line + "\n")
		}
	}
	if os.Getenv("DEPUTY_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if said := apiChanges(string(text), b.String()); said != "" {
		t.Error(said)
	}
}

// apiChanges tells how an API differs from what its file has.
func apiChanges(file, now string) string {
	want, got := strings.Split(strings.TrimSpace(file), "\n"), strings.Split(strings.TrimSpace(now), "\n")
	var gone, added strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			gone.WriteString("- " + line + "\n")
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			added.WriteString("+ " + line + "\n")
		}
	}
	switch {
	case gone.Len() > 0:
		return fmt.Sprintf("the API is not what it was:\n%s%sA line that is gone or changed breaks plugins that were written before: find a way to keep it. "+
			"Where that cannot be, DEPUTY_UPDATE=1 writes testdata/api.txt anew, and the change goes into the release notes.", gone.String(), added.String())
	case added.Len() > 0:
		return fmt.Sprintf("the API has more than its file:\n%sIt is promised from the next release on. If it is meant to be, DEPUTY_UPDATE=1 writes testdata/api.txt anew.", added.String())
	}
	return ""
}

func TestAPIChangesAreTold(t *testing.T) {
	for _, test := range []struct{ file, now, want string }{
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb\n", "a\nb\nc\n", "+ c\nIt is promised"},
		{"a\nb\n", "a\n", "- b\nA line that is gone or changed breaks plugins"},
		{"a\nb int\n", "a\nb string\n", "- b int\n+ b string\nA line that is gone"},
	} {
		if got := apiChanges(test.file, test.now); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%q, %q: got %q, want %q in it", test.file, test.now, got, test.want)
		}
	}
}

// Each exported name says what it guarantees.
func TestEveryExportedNameIsDocumented(t *testing.T) {
	for _, p := range promised(t) {
		for _, s := range p.symbols() {
			if strings.TrimSpace(s.doc) == "" {
				t.Errorf("%s: says nothing about what it guarantees; write a comment at it", s.line)
			}
		}
	}
}

// The rules themselves, on a package that has one of everything.
func TestSymbols(t *testing.T) {
	const source = `package x
// C.
const C, d = 1, 2
const (
	E T = "e" // e
	F T = "f"
)
var V = 1
// F.
func Fn[A, B any](a, b A, more ...B) (x map[string][]*A, err error) { return }
func hidden() {}
type T string
// S.
type S[K interface{ M(x int); ~string }] struct {
	A, B int ` + "`json:\"a\"`" + ` // both
	C func(x, y int) error
	d int
	T
}
// M.
func (s *S) M() {}
func (s s) N() {}
// I.
type I interface {
	// M does.
	M(x int) string
	N()
}
`
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var lines, silent []string
	for _, s := range (apiPackage{"x", []*ast.File{f}}).symbols() {
		lines = append(lines, strings.TrimPrefix(s.line, "pkg x, "))
		if s.doc == "" {
			silent = append(silent, strings.TrimPrefix(s.line, "pkg x, "))
		}
	}
	const k = "K interface{ M(int); ~string }"
	want := []string{
		"const C = 1", `const E T = "e"`, `const F T = "f"`,
		"func Fn[A any, B any](A, A, ...B) (map[string][]*A, error)",
		"method (*S) M()",
		"type I interface", "type I interface, M(int) string", "type I interface, N()",
		"type S[" + k + "] struct", "type S[" + k + "] struct, A int `json:\"a\"`", "type S[" + k + "] struct, B int `json:\"a\"`",
		"type S[" + k + "] struct, C func(int, int) error", "type S[" + k + "] struct, and what is not exported", "type S[" + k + "] struct, embedded T",
		"type T string", "var V",
	}
	if d := gocmp.Diff(want, lines); d != "" {
		t.Errorf("symbols (-want +got):\n%s", d)
	}
	wantSilent := []string{`const F T = "f"`, "type I interface, N()", "type S[" + k + "] struct, C func(int, int) error", "type T string", "var V"}
	if d := gocmp.Diff(wantSilent, silent); d != "" {
		t.Errorf("without a comment (-want +got):\n%s", d)
	}
}
