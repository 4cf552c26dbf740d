// Bare is a plugin made without deputy's SDK, as somebody might write one in
// another language: go-plugin alone keeps its process.
//
// What it guarantees: nothing but the handshake, and not even that when the
// file "start" in its folder for temporary files says so.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/deputy-ha/deputy/sdk/proto"
)

func main() {
	mood, _ := os.ReadFile(filepath.Join(os.TempDir(), "start"))
	moods := strings.Fields(string(mood))
	is := func(word string) bool { return slices.Contains(moods, word) }
	touch("pid", fmt.Sprint(os.Getpid()))
	version := proto.Version
	switch {
	case is("newer"):
		version++
	case is("older"):
		version--
	case is("core"):
		handshake("9|%d|unix|%s|grpc|", proto.Version, filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
	case is("netrpc"):
		handshake("1|%d|unix|%s|netrpc|", proto.Version, filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
	case is("tcp"):
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		handshake("1|%d|tcp|%s|grpc|", proto.Version, l.Addr())
	case is("elsewhere"):
		l, _ := net.Listen("unix", filepath.Join(os.TempDir(), "s"))
		handshake("1|%d|unix|%s|grpc|", proto.Version, l.Addr())
	case is("silent"):
		fmt.Println("no handshake is this")
		time.Sleep(time.Minute)
	case is("unconnected"):
		l, _ := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
		handshake("1|%d|unix|%s|grpc|", proto.Version, l.Addr())
	case is("ends"):
		fmt.Fprintln(os.Stderr, "no database")
		os.Exit(3)
	}
	if is("env") {
		touch("env", strings.Join(os.Environ(), "\n"))
	}
	if is("panicky") {
		syscall.Write(2, []byte(`{"@message": 5}`+"\n"))
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{version: {proto.ServiceName: adapter{}}},
		GRPCServer:       goplugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
}

// handshake says where nobody serves, and waits.
func handshake(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	time.Sleep(time.Minute)
}

func touch(name, text string) { os.WriteFile(filepath.Join(os.TempDir(), name), []byte(text), 0o600) }

type adapter struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (adapter) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	proto.RegisterPluginServiceServer(g, server{})
	return nil
}

func (adapter) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

// A server serves what a plugin must and no more.
type server struct {
	proto.UnimplementedPluginServiceServer
}

func (server) Describe(context.Context, *proto.DescribeRequest) (*proto.DescribeResponse, error) {
	return &proto.DescribeResponse{Name: "bare", Capabilities: []string{"promote", "demote", "check", "rank"}}, nil
}

func (server) Configure(context.Context, *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	return &proto.ConfigureResponse{}, nil
}

// Transition does what the act's cause says.
func (server) Transition(r *proto.TransitionRequest, s proto.PluginService_TransitionServer) error {
	return does(s.Context(), r.Cause, func() error {
		return s.Send(&proto.TransitionResponse{Event: &proto.TransitionResponse_Result{Result: &proto.Result{Outcome: proto.Outcome_OUTCOME_DONE}}})
	})
}

// Check does what the file "check" says.
func (server) Check(ctx context.Context, _ *proto.CheckRequest) (*proto.CheckResponse, error) {
	mood, _ := os.ReadFile(filepath.Join(os.TempDir(), "check"))
	r := &proto.CheckResponse{Fit: true, Detail: fmt.Sprintf("pid %d", os.Getpid())}
	if n := 0; strings.HasPrefix(string(mood), "position=") {
		fmt.Sscanf(string(mood), "position=%d", &n)
		r.Position = strings.Repeat("7", n)
	}
	return r, does(ctx, string(mood), func() error { return nil })
}

func does(ctx context.Context, mood string, answer func() error) error {
	word, arg, _ := strings.Cut(mood, "=")
	switch word {
	case "shout": // a line of so many bytes
		var n int
		fmt.Sscan(arg, &n)
		write(strings.Repeat("x", n) + "\n")
		touch("shouted", "")
	case "babble":
		go func() {
			for {
				write(strings.Repeat("y", 1000))
			}
		}()
	case "print": // by which go-plugin sends it over its connection
		fmt.Println(arg)
		fmt.Fprintln(os.Stderr, arg)
	case "panic":
		panic(arg)
	case "hang":
		touch("began", "")
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond)
		touch("ended", "")
		return ctx.Err()
	case "quiet": // without a sign of life
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	case "noresult":
		return nil
	case "raw": // the file's content, to descriptor 2
		b, _ := os.ReadFile(filepath.Join(os.TempDir(), arg))
		syscall.Write(2, b)
	case "child": // keeps what this process has open
		c := exec.Command("/bin/sleep", "600")
		for _, to := range []struct {
			fd int
			at func(*os.File)
		}{{1, func(f *os.File) { c.Stdout = f }}, {2, func(f *os.File) { c.Stderr = f }}} {
			fd, _ := syscall.Dup(to.fd)
			to.at(os.NewFile(uintptr(fd), "output"))
		}
		if err := c.Start(); err != nil {
			return err
		}
	}
	return answer()
}

// write writes to descriptor 1 itself, as any program does.
func write(text string) {
	for len(text) > 0 {
		n, err := syscall.Write(1, []byte(text))
		if err != nil {
			return
		}
		text = text[n:]
	}
}
