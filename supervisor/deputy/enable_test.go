package main

import (
	"path/filepath"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/rundir"
)

// A unit that systemd has stopped may be one whose clean-up could not demote:
// what guards its units must stay then.
func TestOnlyWhatIsNotedAsDemotedIsDisabled(t *testing.T) {
	a := &app{paths: paths{run: t.TempDir()}}
	if err := a.demoted("db"); err != nil {
		t.Errorf("where nothing has run: %v", err)
	}
	dir, err := rundir.Open(filepath.Join(a.paths.run, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, c := range map[string]struct {
		note supervisor.Note
		down bool
	}{
		"standby":   {supervisor.Note{Role: sdk.RoleStandby, Last: supervisor.TermRecord{Term: 3}}, true},
		"primary":   {supervisor.Note{Role: sdk.RolePrimary, Tenure: &supervisor.Tenure{Term: 3}, Promoted: []string{"vip"}}, false},
		"its lease": {supervisor.Note{Role: sdk.RoleDemoting, Tenure: &supervisor.Tenure{Term: 3}}, false},
		"failed":    {supervisor.Note{Role: sdk.RoleFailed, Promoted: []string{"vip"}}, false},
	} {
		if err := dir.Save(c.note); err != nil {
			t.Fatal(err)
		}
		if err := a.demoted("db"); (err == nil) != c.down {
			t.Errorf("%s: %v", name, err)
		}
	}
}
