package etcd

import (
	"testing"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

func TestATenureIsGivenBackByAnotherProcess(t *testing.T) {
	supervisortest.Bubble(t, func(t *testing.T) {
		_, _, b, ea, _, sa, sb := pair(t, 3*second)
		l := take(t, ea, until(t, sa, "vacant", isVacant))
		for _, wrong := range []supervisor.Tenure{
			{Service: "db", Term: 1, Pulse: "other"},
			{Service: "db", Term: 2, Pulse: l.Tenure().Pulse},
			{Service: "other", Term: 1, Pulse: l.Tenure().Pulse},
		} {
			if err := b.GiveBack(t.Context(), wrong); err != nil {
				t.Errorf("%+v: %v", wrong, err)
			}
		}
		if st := until(t, sb, "with a primary", func(st supervisor.State) bool { return st.Primary != nil }); st.Vacant || st.Term.Resigned {
			t.Errorf("after tenures of others were given back: %+v", st)
		}
		if err := b.GiveBack(t.Context(), l.Tenure()); err != nil {
			t.Fatal(err)
		}
		if st := until(t, sb, "vacant", isVacant); st.Unclean || !st.Term.Resigned {
			t.Errorf("given back: %+v", st)
		}
	})
}
