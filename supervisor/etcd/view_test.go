package etcd

import (
	"sync"
	"testing"
)

// What a transaction wrote is all in a copy, or not at all.
func TestCopyIsOfOneInstant(t *testing.T) {
	v := newView(under("s/"))
	v.merge(reply{Rev: 1}, nil, 0)
	const last = 20000
	var writing sync.WaitGroup
	writing.Go(func() {
		for rev := int64(2); rev <= last; rev++ {
			a, b := record{Key: "s/primary", Mod: rev}, record{Key: "s/reservation", Mod: rev}
			v.apply(0, event{record: a}, event{record: b, Deleted: rev%2 == 0})
		}
	})
	for seen := int64(0); seen < last; {
		c := v.copy()
		a, b := c.get("s/primary"), c.get("s/reservation")
		if a.Mod%2 == 1 && b.Mod != a.Mod || a.Mod%2 == 0 && b.exists() {
			t.Fatalf("one record is of %d, the other of %d", a.Mod, b.Mod)
		}
		seen = a.Mod
	}
	writing.Wait()
}
