package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A parser reads a binlog from where the last one stopped, and appends each
// position to a file. Two of them at once parse positions twice.
type parser struct {
	positions string
	port      string
	own       string
	service   string
	stateDir  string
}

// interval is the time between two events in the binlog.
const interval = 5 * time.Millisecond

// An Answer is what the parser replies to a question: who it is.
type Answer struct {
	Seq      uint64 `json:"seq"` // as asked
	Node     string `json:"node"`
	Term     uint64 `json:"term"`
	PID      int    `json:"pid"`
	Position uint64 `json:"position"`
}

// lockFD is where start hands over the lock that makes a node's parser the
// only one on it.
const lockFD = 3

// parse runs until ctx ends.
func (p parser) parse(ctx context.Context, a act) (int, error) {
	lock := os.NewFile(lockFD, "lock")
	defer lock.Close() // and not before: what nothing refers to is closed by the garbage collector
	if err := writeHolder(lock, holder{PID: os.Getpid(), Term: a.term, Own: p.own}); err != nil {
		return exitUnknown, fmt.Errorf("note the process in the lock: %w", err)
	}
	return p.work(ctx, a, func() error { return nil })
}

// work is what a parser does until ctx ends. It calls ready once it answers.
func (p parser) work(ctx context.Context, a act, ready func() error) (int, error) {
	conns, err := p.listen()
	if err != nil {
		return exitUnknown, err
	}
	position, term, err := p.last()
	if err != nil {
		return exitUnknown, err
	}
	if term > a.term {
		return exitStale, fmt.Errorf("a parser of term %d has been at work, and this one is of term %d", term, a.term)
	}
	out, err := os.OpenFile(p.positions, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return exitUnknown, err
	}
	defer out.Close()

	at := make(chan uint64, 1) // the position, for whoever answers
	at <- position
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range conns {
		g.Go(func() error {
			<-ctx.Done()
			return c.Close()
		})
		g.Go(func() error { return serve(ctx, c, a, at) })
	}
	g.Go(func() error {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			position := <-at + 1
			_, err := fmt.Fprintf(out, "%d %s %d %d\n", position, a.node, a.term, sinceBoot())
			at <- position
			if err != nil {
				return err
			}
		}
	})
	g.Go(ready)
	if err := g.Wait(); err != nil {
		return exitUnknown, err
	}
	return exitDone, nil
}

// listen opens the node's own address, and the service's, which this node need
// not have yet: the parser is ready before its address comes.
func (p parser) listen() ([]net.PacketConn, error) {
	var conns []net.PacketConn
	for _, host := range []string{p.own, p.service} {
		if host == "" {
			continue
		}
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			ctl := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
			})
			return errors.Join(ctl, err)
		}}
		c, err := lc.ListenPacket(context.Background(), "udp4", net.JoinHostPort(host, p.port))
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	if len(conns) == 0 {
		return nil, errors.New("no address to listen on")
	}
	return conns, nil
}

// serve answers until c is closed.
func serve(ctx context.Context, c net.PacketConn, a act, at chan uint64) error {
	buf := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		answer := Answer{Node: a.node, Term: a.term, PID: os.Getpid()}
		if json.Unmarshal(buf[:n], &answer.Seq) != nil {
			continue
		}
		answer.Position = <-at
		at <- answer.Position
		reply, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(reply, from) // whoever asked may be gone
	}
}

// last returns the last position that anybody has parsed, and in which term.
func (p parser) last() (position, term uint64, err error) {
	f, err := os.Open(p.positions)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	const tail = 4096
	if info, err := f.Stat(); err != nil {
		return 0, 0, err
	} else if info.Size() > tail {
		if _, err := f.Seek(-tail, 2); err != nil {
			return 0, 0, err
		}
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var n, t uint64
		var node string
		if _, err := fmt.Sscanf(lines.Text(), "%d %s %d ", &n, &node, &t); err == nil {
			position, term = n, t
		}
	}
	return position, term, nil
}

// ask asks the parser at host who it is, until patience ends.
func (p parser) ask(host string, patience time.Duration) (Answer, error) {
	c, err := net.Dial("udp4", net.JoinHostPort(host, p.port))
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return Answer{}, err
	}
	if _, err := c.Write([]byte("0")); err != nil {
		return Answer{}, err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return Answer{}, err
	}
	var answer Answer
	return answer, json.Unmarshal(buf[:n], &answer)
}

// check reports fit when this node's parser answers.
func (p parser) check(a act) (int, error) {
	f, err := os.Open(p.lockFile())
	if err != nil {
		return exitCritical, err
	}
	defer f.Close()
	answer, err := p.ask(readHolder(f).Own, time.Until(a.deadline))
	if err != nil {
		return exitCritical, fmt.Errorf("ask the parser: %w", err)
	}
	fmt.Printf("parsing at position %d\n", answer.Position)
	return exitDone, nil
}

func (p parser) lockFile() string { return filepath.Join(p.stateDir, "parser.lock") }
