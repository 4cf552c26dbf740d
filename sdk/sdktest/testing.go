package sdktest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A T is what Run, Build and Readme need of *testing.T; programs that are no tests use
// this package as well and have no use for package testing.
type T interface {
	Helper()                           // leaves the caller out of where a failure is told to be
	Context() context.Context          // ends shortly before the test does
	TempDir() string                   // makes a directory for as long as the test lasts
	Log(args ...any)                   // tells of the test
	Errorf(format string, args ...any) // fails the test, which goes on
	Fatalf(format string, args ...any) // fails and ends the test
	Skip(args ...any)                  // ends the test: it does not apply
}

// testWidth is what is left of 100 columns where go test shows what a subtest
// says.
const testWidth = 88

// Run runs the cases as subtests of a *testing.T. A case fails its subtest with
// what was done, what was seen and what the contract says, or skips it with the
// reason.
func Run[S interface {
	T
	Run(name string, f func(S)) bool
}](t S, s Subject, c Config,
) {
	t.Helper()
	if c.StateDir == "" {
		c.StateDir = t.TempDir()
	}
	u := newSuite(s, c)
	for _, k := range Cases() {
		if c.Only != nil && !c.Only.MatchString(k.Name) {
			continue
		}
		t.Run(k.Name, func(t S) {
			t.Helper()
			switch r := u.run(t.Context(), k); r.Verdict {
			case Failed:
				t.Errorf("%s", r.Text(testWidth))
			case Skipped:
				t.Skip(r.Note)
			default:
				t.Log(r.Note)
			}
		})
	}
}

// Own starts the test's own program as a plugin, as deputy does, for as long as
// the test lasts. Its TestMain has to run the plugin where it is started as one.
func Own(t interface {
	T
	Cleanup(f func())
},
) Hosted {
	t.Helper()
	h, err := Binary("/proc/self/exe").Open(t.Context())
	if err != nil {
		t.Fatalf("start the plugin: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = h.Kill(ctx)
	})
	return h
}

// Build builds the plugin of a package's folder, without C, and returns the
// path of its program.
func Build(t T, dir string) string {
	t.Helper()
	folder, err := filepath.Abs(dir)
	if err != nil {
		t.Fatalf("build %s: %v", dir, err)
	}
	path := filepath.Join(t.TempDir(), "deputy-plugin-"+filepath.Base(folder))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	return path
}
