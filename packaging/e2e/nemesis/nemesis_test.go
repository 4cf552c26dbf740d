package nemesis

import (
	"reflect"
	"testing"
	"time"
)

func faults() []Fault {
	return []Fault{
		{Name: "kill", Victims: []Victim{Primary, Standby}},
		{Name: "freeze", Victims: []Victim{Primary}, Hold: [2]time.Duration{time.Second, 5 * time.Second}, Often: 3},
		{Name: "quorum", Hold: [2]time.Duration{time.Second, time.Second}, Alone: true},
	}
}

func TestPlanIsThatOfItsSeed(t *testing.T) {
	count, pairs, other := map[string]int{}, 0, 0
	for n := range 3000 {
		s := Plan(7, n, faults())
		if again := Plan(7, n, faults()); !reflect.DeepEqual(s, again) {
			t.Fatalf("step %d is %s, and %s the next time", n, s, again)
		}
		if !reflect.DeepEqual(s.Blows, Plan(8, n, faults()).Blows) {
			other++
		}
		if len(s.Blows) == 2 {
			pairs++
		}
		for _, b := range s.Blows {
			count[b.Fault]++
			f := faults()[map[string]int{"kill": 0, "freeze": 1, "quorum": 2}[b.Fault]]
			if b.Hold < f.Hold[0] || b.Hold > f.Hold[1] || f.Alone && (len(s.Blows) > 1 || b.On != Nobody) {
				t.Errorf("step %d: %s", n, s)
			}
		}
	}
	if other < 2000 {
		t.Errorf("another seed has other blows in %d of 3000 steps", other)
	}
	if pairs < 300 || pairs > 1000 {
		t.Errorf("%d of 3000 steps have two blows, want about a fifth", pairs)
	}
	if f := float64(count["freeze"]) / float64(count["kill"]); f < 2 || f > 4 {
		t.Errorf("got %v: what is three times as often comes %.1f times as often", count, f)
	}
}
