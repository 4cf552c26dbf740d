package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker where a release is built.
var version string

// A build is what `deputy version -o json` prints.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the sources
	Modified bool   `json:"modified,omitempty"` // the sources were changed after it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionOf() build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			b.Version = v
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if version != "" {
		b.Version = version
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return a.prints(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := versionOf()
			if a.json() {
				return a.printJSON(b)
			}
			from := ""
			if b.Revision != "" {
				from = ", " + b.Revision[:min(12, len(b.Revision))]
				if b.Modified {
					from += " with changes"
				}
			}
			fmt.Fprintf(a.stdout, "deputy %s (%s %s%s)\n", b.Version, b.Go, b.Platform, from)
			return nil
		},
	})
}
