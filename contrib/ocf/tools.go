package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// toolFailed is the exit status of a tool that has no answer: CRM_EX_ERROR.
const toolFailed = 1

// answering are the tools of Pacemaker that this program can stand in for, as
// far as a single resource needs them.
var answering = []string{"crm_attribute", "crm_master", "crm_node"}

// clustered are those that only a cluster can answer. An agent that names one of
// them is refused.
var clustered = []string{
	"attrd_updater", "cibadmin", "crm_failcount", "crm_mon", "crm_resource", "crm_simulate", "crm_standby", "crm_ticket", "stonith_admin",
}

func isTool(name string) bool {
	return slices.Contains(answering, name) || slices.Contains(clustered, name)
}

// answerFor is what a tool prints. A promotion score is taken and dropped: which
// node is promoted deputy decides. Everything else would be a question to a
// cluster that there is not, and fails in words.
func answerFor(name string, args []string, env func(string) string) (out string, err error) {
	has := func(options ...string) bool {
		return slices.ContainsFunc(args, func(arg string) bool {
			option, _, _ := strings.Cut(arg, "=")
			return slices.Contains(options, option)
		})
	}
	promotion := name == "crm_master" || name == "crm_attribute" && has("-p", "--promotion")
	switch {
	case promotion && has("-v", "--update", "-D", "--delete") && !has("-G", "--query"):
		return "", nil
	case promotion:
		return "", errors.New("deputy keeps no promotion scores")
	case name == "crm_node" && has("-n", "--name"):
		return env("OCF_RESKEY_CRM_meta_on_node") + "\n", nil
	}
	return "", fmt.Errorf("deputy is no Pacemaker cluster: it cannot answer %s", strings.TrimSpace(name+" "+strings.Join(args, " ")))
}

// placeTools makes a folder where this program stands in for every tool. It may
// be there already, and be in use.
func placeTools(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of tools: %w", err)
	}
	for _, name := range slices.Concat(answering, clustered) {
		path := filepath.Join(dir, name)
		if to, err := os.Readlink(path); err == nil && to == self {
			continue
		}
		// By a name of its own first, so that there is never none.
		next := fmt.Sprintf("%s.%d", path, os.Getpid())
		if err := os.Symlink(self, next); err != nil {
			return fmt.Errorf("place %s: %w", name, err)
		}
		if err := os.Rename(next, path); err != nil {
			return fmt.Errorf("place %s: %w", name, errors.Join(err, os.Remove(next)))
		}
	}
	return nil
}
