package etcd

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor/etcd/etcdtest"
)

// A member that is dead, or hangs, from before the start is left by watches as
// well as by calls, wherever it stands in the list.
func TestAMemberThatIsOutKeepsNoWatchOnRealEtcd(t *testing.T) {
	c := etcdtest.StartT(t, quick)
	a := startReal(t, c, "a")
	lease := takeReal(t, a, "db", 3*time.Second)
	for i := range c.Size() {
		m := c.Member(i)
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		b := startReal(t, c, "b")
		e := b.Elector("db", 3*time.Second)
		began := time.Now()
		// Which roles alternate, so that each is news.
		role := []sdk.Role{sdk.RolePromoting, sdk.RolePrimary}[i%2]
		time.AfterFunc(4*time.Second, func() {
			if err := lease.Announce(t.Context(), role); err != nil {
				t.Errorf("announce: %v", err)
			}
		})
		for st := range e.Observe(t.Context()) {
			if st.Primary != nil && st.Primary.State == role && time.Since(began) > 4*time.Second {
				break
			}
		}
		// The views are read again every ten seconds, so this proves the watch.
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("member %d out: seen only after %v", i, took)
		}
		b.stop()
		if err := m.Continue(); err != nil {
			t.Fatal(err)
		}
	}
	if lease.Cause() != nil {
		t.Errorf("lost: %v", lease.Cause())
	}
}
