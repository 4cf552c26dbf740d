// Package agents is what plugins share that run agents of ClusterLabs.
//
// What it guarantees: what an agent writes is read to its end and kept up to a
// bound, and the values of parameters by whose names they are secrets are taken
// out of it. An agent that has ended is not waited for longer because somebody
// else has its outputs.
//
// What it does not: a secret that the agent has changed, as by quoting it, is not
// found.
package agents

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// CheckProgram tells why a file is not a program, with an error that wraps
// os.ErrNotExist where there is none.
func CheckProgram(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode().Perm()&0o111 == 0) {
		err = fmt.Errorf("%s is not a program", path)
	}
	return err
}

// maxOutput bounds what is kept of each output of an agent, in bytes, metadata
// included.
const maxOutput = 256 << 10

// A head keeps the beginning of what is written.
type head struct{ bytes.Buffer }

func (h *head) Write(b []byte) (int, error) {
	h.Buffer.Write(b[:min(len(b), maxOutput-h.Len())])
	return len(b), nil
}

// Run runs a command of sdk.Command and returns its exit code and what it has
// written. The error is that it did not start, or has not ended by itself.
func Run(cmd *exec.Cmd) (code int, out, errs string, err error) {
	stdout, stderr := &head{}, &head{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended, and left somebody with its outputs
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		code, err = exit.ExitCode(), nil
	}
	return code, stdout.String(), stderr.String(), err
}

// ReadMetadata reads what the named agent says of itself.
func ReadMetadata(agent, text string, into any) error {
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = false // their texts are not all well-formed
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read the metadata of %s: %w", agent, err)
	}
	return nil
}

// secret are the names of parameters whose values nobody is to see.
var secret = regexp.MustCompile(`(?i)pass|secret|token|community|private`)

// Hider returns what takes secrets out of what an agent prints: told to be
// verbose, some print what they are given.
func Hider(parameters map[string]string) func(string) string {
	var pairs []string
	for name, value := range parameters {
		if secret.MatchString(name) && value != "" {
			pairs = append(pairs, value, "***")
		}
	}
	return strings.NewReplacer(pairs...).Replace
}
