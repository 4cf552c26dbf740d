package plugin

import (
	"context"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

var hooks = map[string]func([]string) int{}

func TestOutcomeOfAnAct(t *testing.T) {
	for _, c := range []struct {
		body string
		want sdk.Result
	}{
		{"exit 0", sdk.Result{Outcome: sdk.Done}},
		{"echo one; echo two; exit 0", sdk.Result{Outcome: sdk.Done, Detail: "two"}},
		{"echo it is; exit 10", sdk.Result{Outcome: sdk.Already, Detail: "it is"}},
		{"echo not me >&2; exit 20", sdk.Result{Outcome: sdk.Unchanged, Refused: true, Detail: "not me"}},
		{"exit 75", sdk.Result{Outcome: sdk.Unchanged, Detail: "exit code 75"}},
		{"exit 40", sdk.Result{Outcome: sdk.StaleTerm, Detail: "exit code 40"}},
		{"echo oops >&2; exit 1", sdk.Result{Outcome: sdk.Unknown, Detail: "exit code 1: oops"}},
		{"exit 127", sdk.Result{Outcome: sdk.Unknown, Detail: "exit code 127"}},
		{"kill -SEGV $$", sdk.Result{Outcome: sdk.Unknown, Detail: "ended by SIGSEGV"}},
		{"kill -KILL $$", sdk.Result{Outcome: sdk.Unknown, Detail: "ended by SIGKILL"}},
		{"for i in 1 2 3 4 5; do echo $i; done; exit 3", sdk.Result{Outcome: sdk.Unknown, Detail: "exit code 3: 3; 4; 5"}},
	} {
		t.Run(c.body, func(t *testing.T) {
			b := newBench(t, map[string]any{"promote": c.body, "demote": c.body})
			for _, a := range []sdk.Action{sdk.Promote, sdk.Demote} {
				if got := b.Do(context.Background(), act(a, long), nil); got != c.want {
					t.Errorf("%s: got %+v, want %+v", a, got, c.want)
				}
			}
		})
	}
}

func TestHookDeafToSignalsIsKilled(t *testing.T) {
	b := newBench(t, map[string]any{"demote": `trap "" TERM; while :; do sleep 60; done`})
	took := within(t, 3*time.Second, func() {
		got := b.Do(context.Background(), act(sdk.Demote, 100*time.Millisecond), nil)
		if want := (sdk.Result{Outcome: sdk.Unknown, Detail: "cut short: not done within 100ms"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	if took < 100*time.Millisecond+graceTime {
		t.Errorf("took %s, but has a grace of %s after its deadline", took, graceTime)
	}
}
