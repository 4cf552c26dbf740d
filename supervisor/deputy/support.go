package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// What one piece of a support archive may take: a daemon may be frozen, and a
// journal long.
const (
	pieceTime  = 10 * time.Second
	pieceSize  = 8 << 20
	journalFor = "-24h"
)

func (a *app) supportCommand() *cobra.Command {
	file := ""
	c := &cobra.Command{
		Use:   "support",
		Short: "Collect what a report about a mistake needs, without secrets",
		Long: "Collect what a report about a mistake needs into one archive that only you can read:\n" +
			"versions, settings and definitions, what check, status, explain and history say,\n" +
			"plugins, units, the journal of the last day, and where daemons are in their code.\n\n" +
			"Secrets are left out: what is named like one, and the content of all credentials,\n" +
			"wherever it turns up. What cannot be had is noted. It works without a daemon and\n" +
			"without etcd. Look through it before you send it: names, addresses and what hooks log\n" +
			"are in it.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c.Context())
			defer stop()
			now := time.Now().UTC()
			node, err := a.nodeName()
			if err != nil {
				node = "unknown"
			}
			name := fmt.Sprintf("deputy-support-%s-%s", node, now.Format("20060102T150405Z"))
			if file == "" {
				file = name + ".tar.gz"
			}
			s := &support{app: a, at: now}
			if err := s.collect(ctx); err != nil {
				return fmt.Errorf("collect: %w", err)
			}
			if err := s.write(file, name); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s: %d pieces", file, len(s.pieces))
			if len(s.lacking) > 0 {
				fmt.Fprintf(a.stdout, ", %d could not be had", len(s.lacking))
			}
			fmt.Fprintf(a.stdout, "; manifest.txt in it tells which\nSecrets are left out. Look through it before you send it: tar -xzf %s\n", file)
			return nil
		},
	}
	c.Flags().StringVarP(&file, "output-file", "o", "", "where to, such as /root/support.tar.gz")
	_ = c.MarkFlagFilename("output-file")
	return c
}

// A support is an archive in the making.
type support struct {
	app     *app
	at      time.Time
	pieces  []exhibit
	lacking []string // what could not be had, and why
	secrets []string // to be found nowhere in it
}

// An exhibit is one file of the archive.
type exhibit struct{ name, text string }

// add puts a piece in, or notes why there is none. Both can be.
func (s *support) add(name, text string, err error) {
	if err != nil {
		s.lacking = append(s.lacking, name+": "+tidy(err.Error()))
	}
	if len(text) > pieceSize {
		s.lacking = append(s.lacking, fmt.Sprintf("%s: only its last %d of %d bytes", name, pieceSize, len(text)))
		text = text[len(text)-pieceSize:]
	}
	if text != "" {
		s.pieces = append(s.pieces, exhibit{name, text})
	}
}

// collect asks for every piece, several at a time, each for a bounded time. The
// error says that somebody does not want to wait any more.
func (s *support) collect(ctx context.Context) error {
	a := s.app
	s.settings()
	var names []string
	var jobs []func(context.Context) (string, error)
	job := func(name string, do func(context.Context) (string, error)) {
		names, jobs = append(names, name), append(jobs, do)
	}
	command := func(name string, args ...string) {
		job(name, func(ctx context.Context) (string, error) {
			var out bytes.Buffer
			err := a.inside(ctx, args, &out)
			return out.String(), err
		})
	}
	program := func(name string, args ...string) {
		job(name, func(ctx context.Context) (string, error) {
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.WaitDelay = time.Second
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
			out, err := cmd.CombinedOutput()
			return string(out), err
		})
	}

	command("version.json", "version", "-o", "json")
	program("uname.txt", "uname", "-a")
	for _, file := range []string{"/etc/os-release", "/proc/uptime", "/proc/loadavg", "/proc/meminfo"} {
		job("system/"+filepath.Base(file), func(context.Context) (string, error) {
			b, err := os.ReadFile(file)
			return string(b), err
		})
	}
	command("check.txt", "check", "--deep")
	command("plugins.txt", "plugin", "list")
	command("status.txt", "status")
	command("status.json", "status", "-o", "json")
	daemons := a.daemons()
	services := slices.Concat(daemons, a.defined())
	slices.Sort(services)
	for _, name := range slices.Compact(services) {
		command("services/"+name+"/status.txt", "status", name)
		command("services/"+name+"/explain.txt", "explain", name)
		command("services/"+name+"/explain.json", "explain", name, "-o", "json")
		command("services/"+name+"/history.txt", "history", name, "-n", "0")
		command("services/"+name+"/history.json", "history", name, "-n", "0", "-o", "json")
		if slices.Contains(daemons, name) {
			job("services/"+name+"/goroutines.txt", control.NewClient(a.dir(name)).Goroutines)
		}
	}
	program("units.txt", "systemctl", "list-units", "--all", "--full", "--plain", "--no-pager", "deputy*")
	program("units-status.txt", "systemctl", "status", "--full", "--no-pager", "--lines=0", "deputy*")
	program("journal.txt", "journalctl", "--no-pager", "--quiet", "-o", "short-iso-precise", "--since="+journalFor, "-n", "20000", "-u", "deputy*")

	texts, errs := make([]string, len(jobs)), make([]error, len(jobs))
	each(names, func(i int, _ string) {
		ctx, cancel := context.WithTimeoutCause(ctx, pieceTime, fmt.Errorf("not within %s", pieceTime))
		defer cancel()
		texts[i], errs[i] = jobs[i](ctx)
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, name := range names {
		s.add(name, texts[i], errs[i])
	}
	return nil
}

// settings takes in the node's file and the definitions, without secrets, and
// learns what the secrets are.
func (s *support) settings() {
	a := s.app
	root := filepath.Dir(a.paths.config)
	parts, _ := filepath.Glob(filepath.Join(root, "deputy.d", "*.toml"))
	definitions, _ := filepath.Glob(filepath.Join(a.paths.services, "*.toml"))
	for _, file := range slices.Concat([]string{a.paths.config}, parts, definitions) {
		text, secrets, err := config.Redacted(file)
		s.secrets = append(s.secrets, secrets...)
		under := "config"
		if filepath.Dir(file) == filepath.Clean(a.paths.services) {
			under = "config/services.d"
		} else if file != a.paths.config {
			under = "config/deputy.d"
		}
		s.add(filepath.Join(under, filepath.Base(file)), text, err)
	}
	kept, _ := filepath.Glob(filepath.Join(root, "credentials", "*"))
	for _, file := range kept {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // who may not read it cannot have let it in either
		}
		s.secrets = append(s.secrets, strings.TrimSpace(string(b)))
		for line := range strings.Lines(string(b)) {
			s.secrets = append(s.secrets, strings.TrimSpace(line))
		}
	}
}

// least is the shortest secret that is looked for: shorter ones are parts of
// other words.
const least = 4

// clean returns a replacer that leaves out every secret that is known.
func (s *support) clean() *strings.Replacer {
	var pairs []string
	known := slices.DeleteFunc(slices.Clone(s.secrets), func(v string) bool { return len(v) < least })
	slices.SortFunc(known, func(a, b string) int { return len(b) - len(a) }) // a part of another comes after it
	for _, v := range slices.Compact(known) {
		pairs = append(pairs, v, "(left out)")
		if quoted := strings.Trim(fmt.Sprintf("%q", v), `"`); quoted != v {
			pairs = append(pairs, quoted, "(left out)")
		}
	}
	return strings.NewReplacer(pairs...)
}

// manifest tells what is in the archive, and what is not.
func (s *support) manifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "deputy support, %s\n\nIn it, without secrets:\n", s.at.Format(time.RFC3339))
	for _, p := range s.pieces {
		fmt.Fprintf(&b, "  %s\n", p.name)
	}
	if len(s.lacking) > 0 {
		b.WriteString("\nCould not be had, or not all of it:\n")
		for _, l := range s.lacking {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	return b.String()
}

// write makes the archive, whole or not at all. Nobody else may read it.
func (s *support) write(file, dir string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another file by -o", file)
	}
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(file)))
		}
	}()
	zip := gzip.NewWriter(f)
	out := tar.NewWriter(zip)
	clean := s.clean()
	for _, p := range append([]exhibit{{"manifest.txt", s.manifest()}}, s.pieces...) {
		text := clean.Replace(p.text)
		err := out.WriteHeader(&tar.Header{Name: dir + "/" + p.name, Mode: 0o600, Size: int64(len(text)), ModTime: s.at})
		if err == nil {
			_, err = io.WriteString(out, text)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), zip.Close(), f.Sync())
}
