package plugin

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
	"github.com/deputy-ha/deputy/sdk/wire"
	"github.com/deputy-ha/deputy/supervisor"
)

// A libraryScene is what go-plugin's own runner made of a scene.
type libraryScene struct {
	said  string // the first line, if there was one in time
	alive bool   // the process that hosts was, then
	err   error
}

// byLibrary begins to have go-plugin host a plugin with its own runner, in a
// process of its own since that may hang or end in a panic. It is what the
// rules of this package are held against; the function returned tells what
// came of it.
func byLibrary(t *testing.T, use, scene, start string) func() libraryScene {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan libraryScene, 1)
	go func() { came <- playByLibrary(bin, use, scene, start) }()
	return func() libraryScene {
		t.Helper()
		s := <-came
		if s.err != nil {
			t.Fatal(s.err)
		}
		return s
	}
}

func playByLibrary(bin, use, scene, start string) libraryScene {
	dir, err := os.MkdirTemp(bin, "library") // the path of a socket is short
	if err != nil {
		return libraryScene{err: err}
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "start"), []byte(start), 0o600); err != nil {
		return libraryScene{err: err}
	}
	cmd := exec.Command(os.Args[0], "hook", "library", scene, filepath.Join(bin, prefix+use))
	own := func(v string) bool { return strings.HasPrefix(v, "PLUGIN_") || strings.HasPrefix(v, "TMPDIR=") }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), own), "TMPDIR="+dir, "SECRET=of the host")
	in, err := cmd.StdinPipe() // which stays open, as that of a supervisor may
	if err != nil {
		return libraryScene{err: err}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return libraryScene{err: err}
	}
	if err := cmd.Start(); err != nil {
		return libraryScene{err: err}
	}
	lines := make(chan string)
	go func() { // until the output ends, with the process and all that have it
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		cmd.Process.Kill()
		for _, pid := range marked(dir) {
			kill(pid, unix.SIGKILL)
		}
		for range lines {
		}
		in.Close()
		cmd.Wait()
	}()
	switch line, ok := <-lines; {
	case !ok:
		return libraryScene{}
	case line != "ready":
		return libraryScene{err: fmt.Errorf("the library does not host it at all: %q", line)}
	}
	came := libraryScene{alive: true}
	wait := 10 * time.Second
	switch scene {
	case "kill a stopped one": // of which nothing is expected
		wait = time.Second
	case "orphan":
		wait = 0
	}
	select {
	case line, ok := <-lines:
		came.said, came.alive = line, ok
	case <-time.After(wait):
	}
	if scene == "orphan" {
		cmd.Process.Kill()
		time.Sleep(time.Second)
		came.said = fmt.Sprint(len(marked(dir)))
	}
	return came
}

// library is the other side of byLibrary.
func library(args []string) int {
	dir := os.TempDir()
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {}},
		Cmd:              exec.Command(args[1]),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: os.Stderr}),
	})
	c, err := client.Client()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	w := wire.New(c.(*goplugin.GRPCClient).Conn)
	pid := client.ReattachConfig().Pid
	do := func(cause string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 800*time.Millisecond)
		defer cancel()
		tr := act(sdk.Promote, time.Minute)
		tr.Cause = cause
		_, err := w.Do(ctx, tr, time.Second, func(string) {})
		return err
	}
	switch args[0] {
	case "kill a stopped one":
		for kill(pid, unix.SIGSTOP); !stopped(pid); {
			time.Sleep(time.Millisecond)
		}
		client.Kill()
		fmt.Println("killed")
	case "grandchild":
		do("child")
		kill(pid, unix.SIGKILL)
		for range 80 {
			time.Sleep(10 * time.Millisecond)
			if client.Exited() {
				break
			}
		}
		fmt.Println("exited", client.Exited())
	case "terminate":
		kill(pid, unix.SIGTERM)
		time.Sleep(100 * time.Millisecond)
		fmt.Println(do(""))
	case "socket":
		kill(pid, unix.SIGKILL)
		for !client.Exited() {
			time.Sleep(time.Millisecond)
		}
		client.Kill()
		left, _ := filepath.Glob(filepath.Join(dir, "plugin*"))
		fmt.Println("sockets left:", len(left))
	case "environment":
		b, _ := os.ReadFile(filepath.Join(dir, "env"))
		fmt.Println("leaked:", strings.Contains(string(b), "SECRET=of the host"))
	case "shout":
		fmt.Println(do("shout=1000000"))
	case "panic":
		do("panic=mine")
		fmt.Println("afterwards:", do(""))
	case "crash":
		kill(pid, unix.SIGKILL)
		time.Sleep(500 * time.Millisecond)
		client.Start()
		fmt.Println(do(""))
	}
	time.Sleep(time.Minute)
	return 0
}

// host hosts a plugin until it is killed, or is replaced by another program on
// SIGUSR1, as an upgrade does it.
func host(args []string) int {
	mood, dirs, dir := args[0], args[1:2], args[2]
	if mood == "another" {
		os.WriteFile(filepath.Join(dir, "another"), nil, 0o600)
		time.Sleep(time.Minute)
	}
	h := Host{Service: "db", Node: "a", RunDir: filepath.Join(dir, "run"), UID: os.Geteuid(), Dirs: dirs, Stall: 400 * time.Millisecond, Clock: boot{}, Log: slog.New(slog.DiscardHandler)}
	p, err := New(h, supervisor.Part{Use: "moody", Name: "moody", Config: map[string]any{"dir": dir, "promote": "touch=began deaf", "demote": "touch=began await=go"}})
	if err == nil {
		err = p.Open(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	replaced := make(chan os.Signal, 1)
	signal.Notify(replaced, unix.SIGUSR1)
	os.WriteFile(filepath.Join(dir, "hosted"), nil, 0o600)
	switch mood {
	case "acting":
		p.Do(context.Background(), act(sdk.Promote, time.Minute), nil)
	case "slow":
		fmt.Println(p.Do(context.Background(), act(sdk.Demote, time.Minute), nil).Outcome)
	}
	<-replaced
	unix.Exec(os.Args[0], []string{os.Args[0], "hook", "host", "another", "", dir}, os.Environ())
	return 1
}
