package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deputy-ha/deputy/supervisor"
)

func TestSightOfWhatOthersHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := Sight(path)
	if n, err := s.Note(); err != nil || n.Role != "" || s.Until() != 0 || s.Holder() != 0 {
		t.Errorf("of nothing: %+v, %v, until %d, holder %d", n, err, s.Until(), s.Holder())
	}
	d := open(t, path)
	want := primary(7)
	if err := errors.Join(d.Save(want), d.SaveUntil(9)); err != nil {
		t.Fatal(err)
	}
	want.Tenure.Until = 9
	got, err := s.Note()
	if err != nil || !cmp.Equal(got, want) || s.Until() != 9 || s.Holder() != os.Getpid() {
		t.Errorf("got %+v, %v, until %d, holder %d", got, err, s.Until(), s.Holder())
	}
	if err := d.Save(supervisor.Note{Role: "standby"}); err != nil || s.Until() != 0 {
		t.Errorf("after the tenure: %v, until %d", err, s.Until())
	}
	if err := os.WriteFile(filepath.Join(path, noteFile), make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Note(); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
}
