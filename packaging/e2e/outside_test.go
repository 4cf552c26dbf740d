package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A release is a Debian whose hosts are booted.
type release struct {
	suite   string
	systemd string // its version
	more    string // packages besides those installed everywhere, with commas
}

// releases returns those that were asked for.
func releases() ([]release, error) {
	all := []release{{suite: "bookworm", systemd: "252"}, {suite: "trixie", systemd: "257"}}
	want := cmp.Or(os.Getenv("DEPUTY_E2E_DEBIAN"), "both")
	if want == "both" {
		return all, nil
	}
	for _, r := range all {
		if r.suite == want {
			return []release{r}, nil
		}
	}
	return nil, fmt.Errorf("DEPUTY_E2E_DEBIAN is bookworm, trixie or both, not %q", want)
}

// installed is what a host has besides the essential packages of its release.
const installed = "systemd,systemd-sysv,libpam-systemd,dbus,polkitd,iproute2,nftables,procps,needrestart"

// rootFor is longer than debootstrap takes on a slow day.
const rootFor = 8 * time.Minute

func cacheDir() string {
	if dir := os.Getenv("DEPUTY_E2E_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(cmp.Or(os.Getenv("XDG_CACHE_HOME"), "/var/cache"), "deputy-e2e")
}

// packages are all of a release's.
func (r release) packages() string {
	if r.more == "" {
		return installed
	}
	return installed + "," + r.more
}

// rootDir is the root file system of a release. Another list of packages is
// another one.
func (r release) rootDir() string {
	sum := sha256.Sum256([]byte(r.packages()))
	return filepath.Join(cacheDir(), fmt.Sprintf("%s-%x", r.suite, sum[:4]))
}

// lockCache waits until no other run goes on, on this machine.
func lockCache(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(cacheDir(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cacheDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for said := false; ; said = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if !said {
			fmt.Printf("e2e: another run has %s locked: waiting for its end\n", f.Name())
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// dirPrefix begins the name of each run's directory, and of its cgroups: another
// one for each cache, so that runs with caches of their own are in nobody's way.
func dirPrefix() string {
	return fmt.Sprintf("deputy-e2e-%08x-", crc32.ChecksumIEEE([]byte(cacheDir())))
}

// sweep removes what a run that was killed has left: directories, and cgroups
// without a process. The caller has the cache locked, so none is in use.
func sweep() error {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix()+"*"))
	if err != nil {
		return err
	}
	half, err := filepath.Glob(filepath.Join(cacheDir(), "*.new"))
	if err != nil {
		return err
	}
	for _, dir := range append(old, half...) {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what a run before has left: %w", err)
		}
	}
	return sweepCgroups(dirPrefix())
}

// prepare makes what needs the internet or a compiler: root file systems, and
// packages.
func prepare(ctx context.Context, dir string) error {
	if os.Getenv(peersEnv) != "" {
		return preparePeers(ctx, dir)
	}
	wanted, err := releases()
	if err != nil {
		return err
	}
	for _, r := range wanted {
		if os.Getenv(mysqlEnv) != "" {
			r = r.withDatabase()
		}
		if err := r.makeRoot(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := makePackages(ctx, dir); err != nil {
		return err
	}
	fmt.Printf("e2e: packages built in %s\n", time.Since(began).Round(time.Second))
	return nil
}

// makeRoot makes the root file system, unless it is in the cache. It is there
// in whole or not at all.
func (r release) makeRoot(ctx context.Context) error {
	if _, err := os.Stat(r.rootDir()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rootFor)
	defer cancel()
	began, half := time.Now(), r.rootDir()+".new"
	if out, err := command(ctx, "debootstrap", "--variant=minbase", "--include="+r.packages(), r.suite, half); err != nil {
		lines := strings.Split(out, "\n")
		return fmt.Errorf("%w\n%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	archives, err := filepath.Glob(filepath.Join(half, "var/cache/apt/archives/*.deb"))
	if err != nil {
		return err
	}
	for _, file := range archives {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	fmt.Printf("e2e: root file system of %s made in %s\n", r.suite, time.Since(began).Round(time.Second))
	return os.Rename(half, r.rootDir())
}

// command runs a program and returns what it prints.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}
