package sdk

import "testing"

func TestResultTellsWhatWasSeen(t *testing.T) {
	for _, test := range []struct {
		result Result
		want   string // empty: no error
	}{
		{Result{Outcome: Done}, ""},
		{Result{Outcome: Already, Detail: "was up"}, ""},
		{Result{Outcome: Unknown}, "failed-unknown"},
		{Result{Outcome: Unknown, Detail: "exit status 1"}, "failed-unknown: exit status 1"},
		{Result{Outcome: Unchanged, Refused: true, Detail: "no carrier"}, "refused: no carrier"},
		{Result{Outcome: StaleTerm, Detail: "term 9 was seen"}, "stale-term: term 9 was seen"},
		{Result{}, "failed-unknown: no outcome"},
	} {
		got := ""
		if err := test.result.Err(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%+v: error is %q, want %q", test.result, got, test.want)
		}
	}
}
