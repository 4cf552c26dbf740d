package sdk

import "testing"

func TestResultTellsWhatWasSeen(t *testing.T) {
	for _, test := range []struct {
		result Result
		want   string // empty: no error
	}{
		{Result{Outcome: OutcomeDone}, ""},
		{Result{Outcome: OutcomeAlready, Detail: "was up"}, ""},
		{Result{Outcome: OutcomeUnknown}, "failed-unknown"},
		{Result{Outcome: OutcomeUnknown, Detail: "exit status 1"}, "failed-unknown: exit status 1"},
		{Result{Outcome: OutcomeUnchanged, Refused: true, Detail: "no carrier"}, "refused: no carrier"},
		{Result{Outcome: OutcomeStaleTerm, Detail: "term 9 was seen"}, "stale-term: term 9 was seen"},
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
