package netlab

import (
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

// The first thread of the process, which /proc/self is, may be on a host just
// then, for another test.
func TestHomeIsWhereTheProcessIs(t *testing.T) {
	l := New(t)
	away := newHost(t, l)
	found, enough := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	var first sync.Once
	defer all.Wait()
	defer close(enough)
	for range 64 {
		all.Go(func() {
			_ = away.Do(func() error {
				if unix.Gettid() == os.Getpid() {
					first.Do(func() { close(found) })
				}
				<-enough
				return nil
			})
		})
	}
	select {
	case <-found:
	case <-time.After(5 * time.Second):
		t.Skip("the first thread had other things to do")
	}
	var elsewhere, home unix.Stat_t
	if err := unix.Fstat(int(away.ns.Fd()), &elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(int(l.Home().ns.Fd()), &home); err != nil {
		t.Fatal(err)
	}
	if home.Ino == elsewhere.Ino {
		t.Error("home is another host")
	}
}
