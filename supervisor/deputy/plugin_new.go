package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/contrib/python"
	"github.com/deputy-ha/deputy/contrib/shell"
	"github.com/deputy-ha/deputy/supervisor/config"
)

// templates are the projects that `deputy plugin new` makes, a folder for each
// language. Of a file NAME stands for the plugin's name; what ends in .tmpl is
// filled in.
//
//go:embed templates
var templates embed.FS

// languages are those of the projects.
func languages() []string { return []string{"go", "python", "shell"} }

// A project is a plugin to be.
type project struct {
	Name    string
	lang    string
	dir     string
	SDK     string // a checkout of deputy that the code is built from; empty for a release
	Version string // of deputy, as Go names it
	Go      string // the version of Go that deputy was built with
}

func (a *app) pluginNewCommand() *cobra.Command {
	p := project{}
	c := &cobra.Command{
		Use:   "new NAME --lang go|python|shell",
		Short: "Make the project of a plugin, to be built, tested and packaged as it is",
		Long: "Make the project of a plugin, or of a script for the plugin exec, that can be built,\n" +
			"tested and packaged as it is: code that promotes, demotes and checks something real and\n" +
			"tiny, tests of the contract, a Makefile, a README and a service to try it with.\n\n" +
			"Each project has its kit in it, so that what you have tested is what runs. One in Python\n" +
			"needs python3-grpcio and python3-protobuf; one in Go fetches the SDK of this version.",
		Example: "  deputy plugin new greeter --lang python\n" +
			"  deputy plugin new greeter --lang go --dir ~/src/greeter --sdk ~/src/deputy",
		Args:              one("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			p.Name = args[0]
			return a.pluginNew(p)
		},
	}
	c.Flags().StringVar(&p.lang, "lang", "", "language: go, python or shell")
	c.Flags().StringVar(&p.dir, "dir", "", "where it is made (default: deputy-plugin-NAME here; of a shell project NAME)")
	c.Flags().StringVar(&p.SDK, "sdk", "", "of a Go project: a checkout of deputy to build from, instead of the released module")
	_ = c.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(languages(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagDirname("sdk")
	return c
}

func (a *app) pluginNew(p project) error {
	if err := p.complete(versionOf()); err != nil {
		return mark(err, errUsage)
	}
	files, err := p.files()
	if err != nil {
		return err
	}
	if err := write(p.dir, files); err != nil {
		return fmt.Errorf("make %s: %w", p.dir, err)
	}
	fmt.Fprint(a.stdout, p.next())
	return nil
}

// complete judges what was asked for, and fills in what was not.
func (p *project) complete(b build) error {
	if err := config.CheckName(p.Name); err != nil {
		return err
	}
	switch {
	case p.Name == execPlugin:
		return errors.New("exec is built in: give it another name")
	case strings.HasPrefix(p.Name, programPrefix):
		return fmt.Errorf("%q: %s is put before the name of each: give it as %s", p.Name, programPrefix, strings.TrimPrefix(p.Name, programPrefix))
	case p.lang == "":
		return errors.New("new needs --lang go, python or shell")
	case !slices.Contains(languages(), p.lang):
		return fmt.Errorf("--lang is go, python or shell, not %q", p.lang)
	case p.SDK != "" && p.lang != "go":
		return fmt.Errorf("--sdk is for Go; a project in %s has its kit in it", p.lang)
	}
	if p.dir == "" {
		if p.dir = p.Name; p.lang != "shell" {
			p.dir = programPrefix + p.Name
		}
	}
	if p.lang != "go" {
		return nil
	}
	p.Go, _, _ = strings.Cut(strings.TrimPrefix(b.Go, "go"), " ")
	if p.SDK == "" {
		// What a commit between two releases is called, nobody can fetch.
		if !regexp.MustCompile(`\Av?[0-9]+\.[0-9]+\.[0-9]+(-(rc|alpha|beta)[.0-9]*)?\z`).MatchString(b.Version) {
			return fmt.Errorf("this deputy, %s, is no release, so there is no module of its version to fetch: give a checkout of github.com/deputy-ha/deputy by --sdk DIR", b.Version)
		}
		p.Version = "v" + strings.TrimPrefix(b.Version, "v") // packagers often leave it out
		return nil
	}
	sdk, err := filepath.Abs(p.SDK)
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(sdk, "go.mod"))
	if err != nil || !regexp.MustCompile(`(?m)^module github\.com/deputy-ha/deputy$`).Match(mod) {
		return fmt.Errorf("--sdk %s: that is no checkout of github.com/deputy-ha/deputy: its go.mod does not say so", p.SDK)
	}
	p.SDK, p.Version = sdk, "v0.0.0" // of no meaning beside a replace
	return nil
}

// Package is the name as packages may have it (deb-src-control(5)).
func (p project) Package() string {
	return strings.ToLower(strings.ReplaceAll(p.Name, "_", "-"))
}

// A projectFile is one file of a project.
type projectFile struct {
	text string
	mode fs.FileMode
}

// files are those of a project, by their paths.
func (p project) files() (map[string]projectFile, error) {
	all := map[string]projectFile{}
	folder := "templates/" + p.lang
	err := fs.WalkDir(templates, folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(templates, path)
		if err != nil {
			return err
		}
		name, fill := strings.CutSuffix(strings.TrimPrefix(path, folder+"/"), ".tmpl")
		if name == "gitignore" {
			name = ".gitignore" // git of this repository would heed it
		}
		var b strings.Builder
		if b.Write(text); fill {
			b.Reset()
			t, err := template.New(name).Option("missingkey=error").Parse(string(text))
			if err != nil {
				return err
			}
			if err := t.Execute(&b, p); err != nil {
				return err
			}
		}
		f := projectFile{b.String(), 0o644}
		if strings.HasPrefix(f.text, "#!") {
			f.mode = 0o755
		}
		all[strings.Replace(name, "NAME", p.Name, 1)] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch p.lang {
	case "python":
		all["deputy_plugin.py"] = projectFile{python.Kit, 0o644}
	case "shell":
		all["deputy.sh"] = projectFile{shell.Kit, 0o644}
	case "go":
		if p.SDK == "" {
			break
		}
		// What the checkout is built from is known to be what it says.
		sum, err := os.ReadFile(filepath.Join(p.SDK, "go.sum"))
		if err != nil {
			return nil, fmt.Errorf("read the checkout: %w", err)
		}
		all["go.sum"] = projectFile{string(sum), 0o644}
	}
	return all, nil
}

// write makes files in a folder that is not there, or empty. With an error
// nothing is left of it.
func write(dir string, files map[string]projectFile) (err error) {
	made := true
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, fs.ErrExist):
		made = false
		there, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(there) > 0 {
			return errors.New("there is something in it: name another folder by --dir")
		}
	case err != nil:
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		for name := range files {
			_ = os.Remove(filepath.Join(dir, name))
		}
		if made {
			_ = os.Remove(dir)
		}
	}()
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			return err
		}
		if f.mode&0o111 != 0 { // deputy runs nothing that others can write, whatever the umask
			if err := os.Chmod(path, f.mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// next tells what to do with a project.
func (p project) next() string {
	main := map[string]string{"go": "main.go", "python": "plugin.py", "shell": p.Name}[p.lang]
	test := "make test"
	if p.lang != "go" {
		test += "       # needs deputy in your PATH, or DEPUTY=…"
	}
	return fmt.Sprintf(`made %s. Next:
  cd %[1]s
  %s
  $EDITOR %s   # what it does
  sudo make install
  README.md has the rest; %s.toml is a service to try it with.
`, p.dir, test, main, p.Name)
}
