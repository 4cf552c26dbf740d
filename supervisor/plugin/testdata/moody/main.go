// Moody is a plugin that misbehaves as its settings say, for the tests of
// package plugin.
//
// What it guarantees: it notes each call in the folder that its settings name.
// What it does not: anything else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// The settings are the folder for its notes, and a mood for each call: words
// that are done one after the other.
type config struct {
	Dir       string `toml:"dir" doc:"where it notes its calls" default:""`
	Configure string `toml:"configure" doc:"mood" default:""`
	Promote   string `toml:"promote" doc:"mood" default:""`
	Demote    string `toml:"demote" doc:"mood" default:""`
	Check     string `toml:"check" doc:"mood" default:""`
	Renew     string `toml:"renew" doc:"mood" default:""`
	Color     string `toml:"color" doc:"of no meaning" default:""`
	Secret    string `toml:"secret" doc:"of no meaning to others" default:"" sensitive:"true"`
}

type moody struct {
	config
	log func(string, ...any)
}

func main() {
	// What it does before it serves is in a file, because there are no settings
	// yet.
	if mood, err := os.ReadFile(filepath.Join(os.TempDir(), "start")); err == nil {
		if err := be(context.Background(), os.TempDir(), string(mood)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	sdk.Main(sdk.New("moody", newMoody, sdk.Version("1.2"), sdk.Doc("Misbehaves."), sdk.ForcedBound(20*time.Millisecond)))
}

func newMoody(ctx context.Context, c config, h sdk.Host) (*moody, error) {
	m := &moody{config: c, log: h.Log.Info}
	m.note("configure %s", c.Color)
	if c.Secret != "" {
		m.note("secret %s", c.Secret)
	}
	switch c.Color {
	case "bad":
		return nil, &sdk.KeyError{Key: "color", Err: errors.New("is bad")}
	case "worse":
		return nil, errors.New("is worse")
	}
	return m, be(ctx, c.Dir, c.Configure)
}

func (m *moody) Promote(ctx context.Context, t *sdk.Transition) error {
	m.note("promote %d %s %s", t.Term, t.Reason, m.Color)
	return m.be(ctx, m.config.Promote)
}

func (m *moody) Demote(ctx context.Context, t *sdk.Transition) error {
	m.note("demote %d %s", t.Term, t.Mode)
	return m.be(ctx, m.config.Demote)
}

func (m *moody) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	m.note("check %s", role)
	return sdk.Health{Fit: true, Detail: "pid " + fmt.Sprint(os.Getpid()), Position: "7"}, m.be(ctx, m.config.Check)
}

func (m *moody) Renew(ctx context.Context, until sdk.Instant) error {
	m.note("renew %d", until)
	return m.be(ctx, m.config.Renew)
}

// Watch tells of a change for each file "change" that it finds, and removes it.
func (m *moody) Watch(ctx context.Context, changed func()) error {
	m.note("watch %s", m.Color)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
		if m.Dir != "" && os.Remove(filepath.Join(m.Dir, "change")) == nil {
			changed()
		}
	}
}

func (m *moody) Close() error {
	m.note("close %s", m.Color)
	return nil
}

// note keeps a call, with the process that it came to.
func (m *moody) note(format string, args ...any) {
	if m.Dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(m.Dir, "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%d %s\n", os.Getpid(), strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (m *moody) be(ctx context.Context, mood string) error {
	if mood == "log" {
		m.log("went up", "address", "192.0.2.10", "tries", 2)
		return nil
	}
	return be(ctx, m.Dir, mood)
}

// be does what the words of a mood say.
func be(ctx context.Context, dir, mood string) error {
	for word := range strings.FieldsSeq(mood) {
		name, arg, _ := strings.Cut(word, "=")
		switch name {
		case "once": // the rest only the first time
			file := filepath.Join(dir, "once"+arg)
			if _, err := os.Stat(file); err == nil {
				return nil
			}
			os.WriteFile(file, nil, 0o600)
		case "touch":
			os.WriteFile(filepath.Join(dir, arg), nil, 0o600)
		case "await": // a file
			for {
				if _, err := os.Stat(filepath.Join(dir, arg)); err == nil {
					break
				}
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(5 * time.Millisecond):
				}
			}
		case "busy": // slow, and hears nothing
			d, _ := time.ParseDuration(arg)
			time.Sleep(d)
		case "say": // to fd 2, as it is
			say(2, arg+"\n")
		case "raw": // the file's content, to fd 2
			b, _ := os.ReadFile(filepath.Join(dir, arg))
			say(2, string(b))
		case "shout": // a line of so many bytes, to fd 1
			var n int
			fmt.Sscan(arg, &n)
			say(1, strings.Repeat("x", n)+"\n")
		case "babble": // to fd 1, without end
			go func() {
				for {
					say(1, strings.Repeat("y", 1000))
				}
			}()
		case "print": // as a program does that knows of no plugin
			fmt.Println(arg)
			fmt.Fprintln(os.Stderr, arg)
		case "env":
			os.WriteFile(filepath.Join(dir, "env"), []byte(strings.Join(os.Environ(), "\n")), 0o600)
		case "child": // keeps what this process has open
			c := exec.Command("/bin/sleep", "600")
			for i, to := range []*io.Writer{&c.Stdout, &c.Stderr} {
				fd, _ := syscall.Dup(i + 1)
				*to = os.NewFile(uintptr(fd), "output")
			}
			if arg == "group" {
				c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			}
			if err := c.Start(); err != nil {
				return err
			}
		case "freeze":
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			time.Sleep(100 * time.Millisecond) // until it takes effect
		case "die":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case "exit":
			var code int
			fmt.Sscan(arg, &code)
			os.Exit(code)
		case "panic":
			panic("mood: " + arg)
		case "crash": // a panic that nobody recovers
			go panic("mood: " + arg)
			select {}
		case "fail":
			return errors.New(arg)
		case "expired":
			return sdk.ErrExpired
		case "already":
			return sdk.ErrAlready
		case "progress":
			sdk.Progress(ctx, 40, "%s", arg)
		case "note":
			sdk.Note(ctx, "%s", arg)
		case "hang": // but for the end of its call
			<-ctx.Done()
			return context.Cause(ctx)
		case "deaf": // for ever
			select {}
		default:
			return fmt.Errorf("moody does not know %q", word)
		}
	}
	return nil
}

func say(fd int, text string) {
	for len(text) > 0 {
		n, err := syscall.Write(fd, []byte(text))
		if err != nil {
			return
		}
		text = text[n:]
	}
}
