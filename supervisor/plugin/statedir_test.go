package plugin

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
)

// What a part keeps is its own, is there before the part is, and outlasts it.
func TestEachPartKeepsItsOwnState(t *testing.T) {
	old := syscall.Umask(0o077) // as the unit has it
	defer syscall.Umask(old)
	s := opened(t, nil)
	dir := filepath.Join(s.dir, "state/plugins/moody")
	if got := mode(t, dir); got != 0o700 {
		t.Errorf("mode of the state directory: got %o, want 700", got)
	}
	if got := mode(t, filepath.Dir(dir)); got != 0o711 {
		t.Errorf("mode of the directory above: got %o, want 711, to pass through", got)
	}
	s.write("state/plugins/moody/kept", "x")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.exists("state/plugins/moody/kept") {
		t.Error("what the part kept is gone when it is opened again")
	}
}

// A disk that takes nothing more must not keep a part from its demotion.
func TestNoStateDirectoryIsNoReasonNotToDemote(t *testing.T) {
	s := newStage(t, "moody", nil)
	s.write("state", "in the way")
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.does(act(sdk.Demote, long), sdk.OutcomeDone, "")
	if log := s.log.String(); !strings.Contains(log, "state directory not usable") || !strings.Contains(log, filepath.Join(s.dir, "state")) {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
}

func TestScriptsKeepStateAsTheirUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if os.Geteuid() != 0 || err != nil {
		needsRoot(t)
	}
	b := newBench(t, map[string]any{"demote": `echo x >"$DEPUTY_STATE_DIR/kept" && ls "$DEPUTY_STATE_DIR"`, "user": "nobody"})
	os.Chmod(filepath.Dir(b.dir), 0o755) // the test's folder is root's
	if err := b.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := b.Do(t.Context(), act(sdk.Demote, long), nil); r.Outcome != sdk.OutcomeDone {
		t.Errorf("demote: got %+v\n%s", r, b.log)
	}
	dir := filepath.Join(b.dir, "state/plugins/hook")
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; strconv.Itoa(int(uid)) != nobody.Uid || mode(t, dir) != 0o700 {
		t.Errorf("owner %d, mode %o; want %s, 700", uid, mode(t, dir), nobody.Uid)
	}
}

func mode(t *testing.T, dir string) os.FileMode {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}
