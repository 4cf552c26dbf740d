package python

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// plugin is the program of testdata/plugin.py, beside the kit.
func plugin(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3 with its grpcio and protobuf: %v\n%s", err, out)
		}
		t.Skipf("apt install python3-grpcio python3-protobuf: %v", err)
	}
	return beside(t, "testdata/plugin.py")
}

func beside(t *testing.T, source string) string {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"deputy_plugin.py": Kit, "deputy-plugin-all": string(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "deputy-plugin-all")
}

// looks tells whether the plugin's part acts as primary.
func looks(file string) func() (bool, error) {
	return func() (bool, error) {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		until, err := strconv.ParseInt(string(text), 10, 64)
		return int64(sdk.Now()) < until, err
	}
}

// TestContract examines plugins that promote in different ways as any other.
func TestContract(t *testing.T) {
	program := plugin(t)
	for name, settings := range map[string]map[string]any{
		"slowly":       {"how": "slow", "takes": "250ms"},
		"by a program": {"how": "child", "takes": "250ms"},
		"noisily":      {"noise": 300000},
		"a daemon":     {"how": "daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := maps.Clone(settings)
			file := filepath.Join(t.TempDir(), "primary")
			settings["file"] = file
			c := sdktest.Config{Settings: settings, Promoted: looks(file), Expires: true, Victim: sdk.Peer{Node: "victim"}}
			switch name { // what is as in that which is slow is left out
			case "by a program":
				c.Only = regexp.MustCompile("^(leaves-nothing|supersede|cancel|deadline|kill-promote|host-death)$")
			case "noisily":
				c.Only = regexp.MustCompile("^(start|promote|adopt|output)$")
			case "a daemon":
				c.Only = regexp.MustCompile("^(promote|adopt|descriptors|host-death)$")
			}
			sdktest.Run(t, sdktest.Binary(program), c)
		})
	}
}
