package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/etcd"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// The scripts under testdata/script show what deputy does, as its users see
// it. `deputy` in them is this test binary, and `stranger` is deputy run by a
// user without any right; `ask` prints what a URL answers. Each script has a part of etcd of its own; $HELLO is
// the plugin of examples/plugin-go, $MOODY that of supervisor/plugin/testdata; nobody listens
// at $LISTEN.
//
// Besides the commands of testscript there are:
//
//	node NAME          from here on, `deputy` is that of the node NAME
//	until REGEXP CMD…  repeats CMD until its output matches, for at most 20s
//	signal SIG NAME    sends a signal to the supervisor of the node NAME
//	unreachable NAME   the node NAME gets an etcd that does not answer
//	etcd start NAME    the node NAME gets an etcd of three members for itself, which soon is full
//	etcd CASE          lose or regain two of its members, fill or mend it
//	exits CODE CMD…    CMD ends with that exit status
//	twin NAME SERVICE  another machine takes part in SERVICE under that name
//	edit FILE OLD NEW  replaces text in a file
//	systemd FILE       from here on, deputy is told that systemd watches it; FILE has what it says to that
//	upgrade FILE       puts another version of deputy, or FILE, in place of bin/deputy, as packages do
//	terminal FILE CMD… runs CMD on a terminal: of FILE a line "wait TEXT" waits until that has been shown,
//	                   another one is typed
//	webhook FILE       begins a webhook whose address is in FILE.url; it notes in FILE what it is sent
//	scrape NODE SERVICE REGEXP  until a whole line of what the node NODE tells Prometheus matches, for at most 20s
//	killed NOTE        kills the process that moody has noted last with that call
func TestScripts(t *testing.T) {
	cluster := etcdtest.StartT(t, etcdtest.Options{
		Members: 1, Heartbeat: 50 * time.Millisecond, Election: 250 * time.Millisecond, NoFsync: true, Direct: true,
	})
	hello := sdktest.Build(t, "../../examples/plugin-go")
	moody := sdktest.Build(t, "../plugin/testdata/moody")
	short, err := os.MkdirTemp("", "s") // paths of sockets have to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	if err := os.Chmod(short, 0o755); err != nil { // strangers get there
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		WorkdirRoot:         short,
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			listen, err := freeAddr()
			if err != nil {
				return err
			}
			env.Setenv("LISTEN", listen)
			env.Setenv("ETCD", cluster.Endpoints()[0])
			env.Setenv("HELLO", hello)
			env.Setenv("MOODY", moody)
			env.Setenv("JOURNAL_STREAM", "1:1") // logs without times
			env.Setenv("TMPDIR", short)
			env.Values["etcd"] = new(*etcdtest.Cluster)
			return prepare(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node": node, "until": until, "signal": signalNode, "unreachable": unreachable, "etcd": ownEtcd, "edit": edit, "exits": exits, "twin": twin, "killed": killed, "upgrade": upgrade, "terminal": terminal, "systemd": underSystemd, "webhook": webhook, "scrape": scrapeNode,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

func TestMain(m *testing.M) {
	etcdtest.Main()
	testscript.Main(m, map[string]func(){"deputy": main, "stranger": stranger, "ask": ask})
}

// ask prints the status, what is allowed, and the body of what a URL answers.
func ask() {
	req, err := http.NewRequest(os.Args[1], os.Args[2], nil)
	if err == nil {
		var res *http.Response
		if res, err = http.DefaultClient.Do(req); err == nil {
			defer res.Body.Close()
			fmt.Printf("%s %s\n", res.Status, res.Header.Get("Allow"))
			_, err = io.Copy(os.Stdout, res.Body)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ask:", err)
		os.Exit(1)
	}
}

// freeAddr is an address of this machine at which nobody listens at this moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// stranger is deputy, run by somebody who may do nothing here.
func stranger() {
	const nobody = 65534
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)} {
		if err != nil {
			fmt.Fprintln(os.Stderr, "stranger:", err)
			os.Exit(1)
		}
	}
	main()
}

// prepare makes programs of the files named hook*, and fills in where the
// script's files are.
func prepare(work string) error {
	// Strangers are to be kept out by deputy, not by this.
	if err := os.Chmod(filepath.Dir(work), 0o755); err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	fill := strings.NewReplacer("$WORK", work, "$USER", me.Username)
	return filepath.WalkDir(work, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		hook := strings.HasPrefix(d.Name(), "hook")
		if !hook && filepath.Ext(path) != ".toml" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if hook {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(fill.Replace(string(b))), mode); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	})
}

func webhook(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: webhook FILE")
	}
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct {
			ID    string `json:"id"`
			Event string `json:"event"`
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err == nil && m.ID == r.Header.Get("Idempotency-Key") {
			fmt.Fprintln(file, r.Method, m.ID, m.Event)
		}
	}))
	ts.Defer(func() { srv.Close(); file.Close() })
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".url"), []byte(srv.URL+"/hooks/ops"), 0o600))
}

func node(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: node NAME")
	}
	useNode(ts, args[0], ts.Getenv("ETCD"))
}

func unreachable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unreachable NAME")
	}
	ts.Check(os.RemoveAll(ts.MkAbs(args[0] + ".toml")))
	useNode(ts, args[0], "http://127.0.0.1:1") // tcpmux: nobody has served that for decades
}

// ownEtcd is an etcd for one script, to be mistreated.
func ownEtcd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || (args[0] == "start") != (len(args) == 2) {
		ts.Fatalf("usage: etcd start NODE, or etcd lose|regain|fill|mend")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	etcd := ts.Value("etcd").(**etcdtest.Cluster)
	if args[0] == "start" {
		c, err := etcdtest.Start(ctx, etcdtest.Options{
			Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond, NoFsync: true, Direct: true, Quota: 8 << 20,
		})
		ts.Check(err)
		ts.Defer(func() { ts.Check(c.Close()) })
		*etcd = c
		useNode(ts, args[1], strings.Join(c.Endpoints(), `", "`))
		return
	}
	c := *etcd
	switch args[0] {
	case "lose":
		c.Member(1).Kill()
		c.Member(2).Kill()
	case "regain":
		back := make(chan error)
		go func() { back <- c.Member(1).Restart(ctx) }()
		go func() { back <- c.Member(2).Restart(ctx) }()
		ts.Check(errors.Join(<-back, <-back))
	case "fill":
		ts.Check(c.Fill(ctx))
	case "mend":
		ts.Check(c.Mend(ctx))
	default:
		ts.Fatalf("etcd %s: no such case", args[0])
	}
}

// useNode makes the node's file, if there is none, and has deputy use it.
func useNode(ts *testscript.TestScript, name, endpoint string) {
	file := ts.MkAbs(name + ".toml")
	if _, err := os.Stat(file); err != nil {
		text := fmt.Sprintf("node = %q\naddress = \"127.0.0.1\"\n\n[etcd]\nendpoints = [\"%s\"]\nprefix = \"/%s\"\n", name, endpoint, ts.Name())
		ts.Check(os.WriteFile(file, []byte(text), 0o644))
	}
	ts.Setenv("DEPUTY_CONFIG", file)
	services := ts.MkAbs(filepath.Join(name, "services.d"))
	if _, err := os.Stat(services); err != nil {
		services = ts.MkAbs("services.d")
	}
	ts.Setenv("DEPUTY_SERVICES", services)
	ts.Setenv("DEPUTY_RUN_DIR", ts.MkAbs(filepath.Join(name, "run")))
	ts.Setenv("DEPUTY_STATE_DIR", ts.MkAbs(filepath.Join(name, "lib")))
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		got := ts.ReadFile("stdout")
		switch {
		case err == nil && want.MatchString(got):
			return
		case time.Now().After(deadline):
			ts.Fatalf("not within 20s: %q in the output of %s:\n%s%s%v", args[0], strings.Join(args[1:], " "), got, ts.ReadFile("stderr"), err)
		}
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit status %d, want %s:\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func signalNode(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal TERM|HUP|KILL|STOP|CONT NODE")
	}
	mark := "DEPUTY_CONFIG=" + ts.MkAbs(args[1]+".toml")
	for _, c := range ts.BackgroundCmds() {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.Process.Pid))
		if err == nil && slices.Contains(strings.Split(string(environ), "\x00"), mark) && slices.Contains(c.Args, "run") {
			ts.Check(c.Process.Signal(signals[args[0]]))
			return
		}
	}
	ts.Fatalf("no supervisor of %s runs", args[1])
}

func twin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: twin NAME SERVICE")
	}
	clock, err := boottime.New()
	ts.Check(err)
	other := supervisor.Node{Name: args[0], Address: "192.0.2.1", Machine: "0123456789abcdef0123456789abcdef"}
	c, err := etcd.Open(etcd.Config{Endpoints: []string{ts.Getenv("ETCD")}, Prefix: "/" + ts.Name(), Clock: clock, Node: other})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	ts.Defer(func() {
		cancel()
		if err := errors.Join(<-ended, c.Close(), clock.Close()); err != nil {
			ts.Fatalf("end the twin: %v", err)
		}
	})
	ts.Check(c.Elector(args[1], time.Second).Publish(ctx, supervisor.Candidate{Node: other}))
}

func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}

// underSystemd listens as PID 1 does, until the script ends.
func underSystemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: systemd FILE")
	}
	socket := ts.MkAbs(args[0] + ".sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ts.Check(err)
	said, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	var ear sync.WaitGroup
	ear.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			fmt.Fprintf(said, "%s\n\n", b[:n])
		}
	})
	ts.Defer(func() {
		l.Close()
		ear.Wait()
		said.Close()
	})
	ts.Setenv("NOTIFY_SOCKET", socket)
	ts.Setenv("WATCHDOG_USEC", "30000000")
}

// upgrade replaces bin/deputy in one step: by the file named, or by a copy of
// this program that differs in what follows its end.
func upgrade(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: upgrade [FILE]")
	}
	var text []byte
	if len(args) == 1 {
		text = []byte(ts.ReadFile(args[0]))
	} else {
		self, err := os.Executable()
		ts.Check(err)
		text, err = os.ReadFile(self)
		ts.Check(err)
		text = append(text, time.Now().String()...)
	}
	program := ts.MkAbs("bin/deputy")
	ts.Check(os.MkdirAll(filepath.Dir(program), 0o755))
	// A process that another script starts just now would have the file open for
	// writing for a moment, and nobody could run it.
	syscall.ForkLock.RLock()
	err := os.WriteFile(program+".new", text, 0o755)
	syscall.ForkLock.RUnlock()
	ts.Check(err)
	ts.Check(os.Rename(program+".new", program))
}

func killed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: killed NOTE")
	}
	pid := 0
	for line := range strings.Lines(ts.ReadFile("notes")) {
		if by, note, _ := strings.Cut(strings.TrimSpace(line), " "); note == args[0] {
			pid, _ = strconv.Atoi(by)
		}
	}
	if pid == 0 {
		ts.Fatalf("no process has noted %q:\n%s", args[0], ts.ReadFile("notes"))
	}
	ts.Check(syscall.Kill(pid, syscall.SIGKILL))
}
