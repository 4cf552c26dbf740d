package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/rundir"
	"github.com/deputy-ha/deputy/supervisor/supervisortest"
)

// A gate leaves a supervisor that lives all the time to demote by itself, and
// waits for none that is dead.
func TestGateEndsInTime(t *testing.T) {
	living := exec.Command("sh", "-c", "read nothing", "deputy", "run", "db") // looks like one
	hold, err := living.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := living.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hold.Close()
		_ = living.Wait()
	})
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	const ttl = 4 * time.Second // as where no definition is kept
	for _, c := range []struct {
		name   string
		holder int
		want   time.Duration // after the last pulse was sent
	}{
		{"supervisor that lives", living.Process.Pid, ttl * 90 / 100},
		{"supervisor that is dead", dead.Process.Pid, ttl * 75 / 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				clock := supervisortest.NewClock()
				sent := clock.Now()
				dir, err := rundir.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				until := sent.Add(ttl * 95 / 100)
				note := supervisor.Note{Role: sdk.RolePrimary, Promoted: []string{"vip"}, Tenure: &supervisor.Tenure{Term: 3, Boot: "now", Until: until}}
				if err := errors.Join(dir.Save(note), dir.SaveUntil(until), dir.Close()); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(path, "lock"), fmt.Appendln(nil, c.holder), 0o600); err != nil {
					t.Fatal(err)
				}
				ready := false
				err = gate{service: "db", sight: rundir.Sight(path), clock: clock}.live(t.Context(), func() { ready = true })
				if !ready || !errors.Is(err, errNotRenewed) {
					t.Errorf("ready: %v, and it ends with %v", ready, err)
				}
				if took := clock.Now().Sub(sent); took != c.want {
					t.Errorf("it ends %s after the last pulse, want %s", took, c.want)
				}
			})
		})
	}
}
