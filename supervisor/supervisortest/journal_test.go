package supervisortest

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// A watcher is a test that notes what it is told.
type watcher struct {
	testing.TB
	said []string
}

func (w *watcher) Helper() {}

func (w *watcher) Errorf(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

func (w *watcher) Fatalf(format string, args ...any) { w.Errorf(format, args...) }

func TestJournalIsInOrderWhateverTheScheduler(t *testing.T) {
	var want string
	for range 20 {
		Bubble(t, func(t *testing.T) {
			j := NewJournal()
			var all sync.WaitGroup
			for _, node := range []string{"db2", "db1"} {
				all.Go(func() {
					log := slog.New(j.Handler(node)).With("node", node, "service", "db")
					parts := []*Plugin{NewPlugin(j, node, "vip"), NewPlugin(j, node, "disk")}
					log.Info("role changed", "role", "demoting", "term", 3, "cause", errors.New("told to stop"))
					var acts sync.WaitGroup
					for _, p := range parts {
						acts.Go(func() {
							p.Do(t.Context(), sdk.Transition{Action: sdk.Demote, Mode: sdk.Forced, Term: 3}, nil)
						})
					}
					acts.Wait()
					for range 3 {
						log.Warn("not written", "cause", "disk is full")
						log.Warn("act failed", "outcome", "told by the part")
					}
					log.Info("role changed", "role", "standby", "term", 3)
				})
			}
			all.Wait()
			switch got := j.String(); {
			case want == "":
				want = got
			case want != got:
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
	lines := strings.Split(strings.TrimSpace(want), "\n")
	if len(lines) != 10 || !strings.Contains(lines[0], "db1  -> demoting term=3 cause=told to stop") ||
		!strings.Contains(lines[2], "disk demote forced term=3 already") || !strings.Contains(lines[9], "db2  -> standby term=3") {
		t.Errorf("the journal reads\n%s", want)
	}
}

func TestJournalCompare(t *testing.T) {
	t.Setenv("DEPUTY_UPDATE", "")
	j := NewJournal()
	j.Add("db1", "-> primary")
	file := filepath.Join(t.TempDir(), "below", "story.txt")

	missing := &watcher{TB: t}
	j.Compare(missing, file)
	t.Setenv("DEPUTY_UPDATE", "1")
	j.Compare(t, file)
	t.Setenv("DEPUTY_UPDATE", "")
	j.Compare(t, file)
	if err := os.WriteFile(file, []byte("another story\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := &watcher{TB: t}
	j.Compare(other, file)
	if len(missing.said) == 0 || len(other.said) != 1 || !strings.Contains(other.said[0], "another story") {
		t.Errorf("without a file: %q; with another: %q", missing.said, other.said)
	}
}

func TestTwoThatActAreFound(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		j := NewJournal()
		act := func(p *Plugin, a sdk.Action, service string) {
			p.Do(t.Context(), sdk.Transition{Action: a, Service: service, Timeout: time.Second}, nil)
			time.Sleep(time.Second)
		}
		one, two := NewPlugin(j, "db1", "vip"), NewPlugin(j, "db2", "vip")
		act(one, sdk.Promote, "db")
		act(NewPlugin(j, "db2", "vip"), sdk.Promote, "other")
		act(NewPlugin(j, "db1", "disk"), sdk.Promote, "db")
		one.Next(sdk.Demote, Behaviour{Outcome: sdk.OutcomeUnknown})
		act(one, sdk.Demote, "db")
		if o := j.Overlaps(); len(o) != 0 {
			t.Errorf("found %q", o)
		}
		two.Next(sdk.Promote, Behaviour{Hangs: true}) // it may have had its effect
		act(two, sdk.Promote, "db")
		act(one, sdk.Demote, "db")
		if o := j.Overlaps(); len(o) != 2 { // vip and disk of db1
			t.Errorf("found %q, want two", o)
		}
		w := &watcher{TB: t}
		j.NeverTwo(w)
		if len(w.said) != 1 {
			t.Errorf("said %q", w.said)
		}
	})
}
