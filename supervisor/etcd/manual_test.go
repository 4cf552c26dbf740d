package etcd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const manual = "../../packaging/man/deputy-operations.7.md"

// plain is text of the manual without markup and line breaks.
func plain(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("*", "", "`", "", `\`, "").Replace(s)), " ")
}

// literals are the strings in Go files.
func literals(t *testing.T, files ...string) (all []string) {
	t.Helper()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all = append(all, s)
				}
			}
			return true
		})
	}
	return all
}

// What the program says the manual explains, and what the manual has operators
// look for the program says.
func TestManualHasEveryTroubleOfEtcd(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	whole := plain(string(text))
	for _, s := range literals(t, "words.go") {
		if !strings.Contains(whole, strings.Trim(s, " :,")) {
			t.Errorf("%s does not tell of %q", manual, s)
		}
	}

	_, chapter, ok := strings.Cut(string(text), "\n## ETCD TROUBLE\n")
	if !ok {
		t.Fatalf("%s has no chapter ETCD TROUBLE", manual)
	}
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(literals(t, append(files, "../member.go")...), "\n")
	// What etcd, TLS and gRPC say is passed on as it is.
	said += "\netcdserver: mvcc: database space exceeded\netcdserver: permission denied\netcdserver: authentication failed, invalid user ID or password"
	messages := 0
	for _, entry := range regexp.MustCompile(`(?m)^\*\*(.+)\*\*\n: `).FindAllStringSubmatch(chapter, -1) {
		for _, message := range strings.Split(entry[1], "**, **") {
			messages++
			for _, part := range strings.Split(message, "…") {
				part = strings.Trim(part, " :,();")
				if !strings.Contains(said, part) {
					t.Errorf("%s tells of %q: nothing says %q", manual, message, part)
				}
			}
		}
	}
	if messages < 20 {
		t.Errorf("%s has %d messages", manual, messages)
	}
}
