package rundir

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

var _ supervisor.Memory = (*Dir)(nil)

// TestMain also is the process that the tests below end by force.
func TestMain(m *testing.M) {
	if path := os.Getenv("RUNDIR_TEST_HOLD"); path != "" {
		hang(path)
	}
	os.Exit(m.Run())
}

// hang holds a directory, notes one thing after the other, and tells each on
// stdout once it is noted.
func hang(path string) {
	d, err := Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := sdk.Instant(1); ; i++ {
		n := primary(i)
		if err := errors.Join(d.Save(n), d.SaveUntil(i+1)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func primary(until sdk.Instant) supervisor.Note {
	return supervisor.Note{
		Role: sdk.RolePrimary, Cause: fmt.Sprintf("won term %d", until), Promoted: []string{"mysql", "vip"}, Keep: true,
		Tenure: &supervisor.Tenure{Service: "orders-db", Term: 7, Pulse: "p1", Boot: "b", Node: "db1", Until: until},
		Last:   supervisor.TermRecord{Term: 6, Node: "db2", Resigned: true},
	}
}

func TestNoteOutlivesTheProcess(t *testing.T) {
	path := t.TempDir() + "/run/orders-db"
	d := open(t, path)
	if n, err := d.Load(); err != nil || n.Role != "" || n.Tenure != nil {
		t.Errorf("before the first note: got %+v, %v, want none", n, err)
	}
	want := primary(100)
	if err := d.Save(want); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := open(t, path).Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestDirectoryIsForItsGroup(t *testing.T) {
	path := t.TempDir() + "/run/orders-db"
	open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o751 {
		t.Errorf("mode %04o, want 0751", got)
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return // no such group here
	}
	if got := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid)); os.Geteuid() == 0 && got != g.Gid {
		t.Errorf("group %s, want that of %s", got, group)
	}
}

func TestOneSupervisorPerService(t *testing.T) {
	path := t.TempDir() + "/orders-db"
	d := open(t, path)
	_, err := Open(path)
	want := fmt.Sprintf("hold run directory: another supervisor of this service runs here: pid %d holds %s/lock", os.Getpid(), path)
	if !errors.Is(err, ErrHeld) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

// What is started while the directory is held does not go on holding it.
func TestLockIsNotHandedOn(t *testing.T) {
	path := t.TempDir() + "/orders-db"
	d := open(t, path)
	child := exec.Command("/bin/cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	open(t, path)
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
}

// The process is killed while it writes, at any moment: the note is whole, and
// not older than what it had told.
func TestKilledWhileWriting(t *testing.T) {
	path := t.TempDir() + "/orders-db"
	for range 10 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "RUNDIR_TEST_HOLD="+path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines, told := bufio.NewScanner(out), 0
		for told < 50 && lines.Scan() {
			if told, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(lines.Text())
			}
		}
		if told == 0 {
			t.Fatal("the process said nothing")
		}
		if _, err := Open(path); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(c.Process.Pid)+" ") {
			t.Fatalf("got %v, want that pid %d holds it", err, c.Process.Pid)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// What it still managed to say was noted too.
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				told = n
			}
		}
		_ = c.Wait()

		d := open(t, path)
		n, err := d.Load()
		if err != nil {
			t.Fatal(err)
		}
		if n.Tenure.Until < sdk.Instant(told) || !strings.HasPrefix(n.Cause, "won term ") {
			t.Fatalf("told %d, and noted %+v", told, n)
		}
		d.Close()
	}
}

func TestUntilIsTheLatest(t *testing.T) {
	path := t.TempDir() + "/orders-db"
	d := open(t, path)
	load := func() sdk.Instant {
		t.Helper()
		n, err := d.Load()
		if err != nil {
			t.Fatal(err)
		}
		if n.Tenure == nil {
			return -1
		}
		return n.Tenure.Until
	}
	check := func(what string, want sdk.Instant) {
		t.Helper()
		if got := load(); got != want {
			t.Errorf("%s: until %d, want %d", what, got, want)
		}
	}
	save := func(n supervisor.Note) {
		t.Helper()
		if err := d.Save(n); err != nil {
			t.Fatal(err)
		}
	}
	until := func(i sdk.Instant) {
		t.Helper()
		if err := d.SaveUntil(i); err != nil {
			t.Fatal(err)
		}
	}
	save(primary(100))
	check("at the beginning", 100)
	until(500)
	check("renewed", 500)
	save(primary(400))
	check("noted again, from before the renewal", 500)
	b, err := os.ReadFile(path + "/until")
	if err != nil || string(b) != "\xf4\x01\x00\x00\x00\x00\x00\x00" {
		t.Errorf("the gate reads %q, %v", b, err)
	}
	save(supervisor.Note{Role: sdk.RoleStandby})
	check("resigned", -1)
	next := primary(200)
	next.Tenure.Term = 8
	save(next)
	check("another tenure", 200)
	d.Close()
	d = open(t, path)
	check("another process", 200)
}

func TestDamagedNotes(t *testing.T) {
	whole := func() []byte {
		page, err := encode(primary(100))
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	for name, test := range map[string]struct {
		page []byte
		want string
	}{
		"empty":        {nil, "it has 0 bytes instead of 4096"},
		"cut off":      {whole()[:100], "it has 100 bytes instead of 4096"},
		"too long":     {append(whole(), 0), "it has 4097 bytes instead of 4096"},
		"zeros":        {make([]byte, pageSize), "it does not begin as a note of this version"},
		"version":      {append([]byte("deputy2\n"), whole()[8:]...), "it does not begin as a note of this version"},
		"one bit":      {func() []byte { p := whole(); p[header+20] ^= 1; return p }(), "its checksum is wrong"},
		"length":       {func() []byte { p := whole(); p[len(magic)+3] = 1; return p }(), "its length is impossible"},
		"cut in place": {func() []byte { p := whole(); clear(p[200:]); return p }(), "its checksum is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(path+"/note", test.page, 0o600); err != nil {
				t.Fatal(err)
			}
			d := open(t, path)
			_, err := d.Load()
			want := "read " + path + "/note, so this node must not rely on what it was: the note is damaged: " + test.want
			if !errors.Is(err, ErrDamaged) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			// It is known again once this process has noted something.
			if err := d.Save(primary(7)); err != nil {
				t.Fatal(err)
			}
			if n, err := d.Load(); err != nil || n.Tenure.Until != 7 {
				t.Errorf("got %+v, %v", n, err)
			}
			d.Close()
			if n, err := open(t, path).Load(); err != nil || n.Tenure.Until != 7 {
				t.Errorf("for the next process: got %+v, %v", n, err)
			}
		})
	}
}

// The largest note that a definition can lead to: as many parts as it may
// have, and every name as long as it may be.
func largest() supervisor.Note {
	long := strings.Repeat("n", 64)
	n := supervisor.Note{
		Role: sdk.RoleCandidate, Keep: true,
		Tenure: &supervisor.Tenure{Service: long, Term: 1<<64 - 1, Pulse: long, Boot: strings.Repeat("b", 36), Node: long, Until: 1<<63 - 1},
		Last:   supervisor.TermRecord{Term: 1<<64 - 1, Node: long, Address: strings.Repeat("a", 253), Pulse: long, Resigned: true, Moved: true},
	}
	for range 32 {
		n.Promoted = append(n.Promoted, long)
	}
	return n
}

func TestEveryNoteFits(t *testing.T) {
	d := open(t, t.TempDir())
	n := largest()
	// JSON writes each of these characters as six.
	n.Cause = strings.Repeat("\x01<é", 5000)
	if err := d.Save(n); err != nil {
		t.Fatal(err)
	}
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	got.Cause = n.Cause
	if diff := cmp.Diff(n, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	page, err := os.ReadFile(d.Path() + "/note")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := decode(page)
	if err != nil || len(kept.Cause) < 50 || !strings.HasSuffix(kept.Cause, "…") {
		t.Errorf("of the cause there is left %q, %v", kept.Cause, err)
	}

	n.Promoted = append(n.Promoted, n.Promoted...)
	if err := d.Save(n); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want that it is too large", err)
	}
	if got, err := d.Load(); err != nil || len(got.Promoted) != 32 {
		t.Errorf("the note before is gone: %+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	page, err := encode(primary(100))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(page)
	f.Add(make([]byte, pageSize))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, page []byte) {
		n, err := decode(page)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want that it is damaged", err)
			}
			return
		}
		if _, err := encode(n); err != nil && !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	})
}

// needRoot skips a test that needs to mount, and fails it where it must run.
func needRoot(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test must run here: %v", err)
	}
	t.Skipf("needs root, to mount a small tmpfs: %v", err)
}

// small mounts a tmpfs of a few pages.
func small(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	needRoot(t, unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// fill takes all room that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path + "/full")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = io.Copy(f, zeros{})
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want a full disk", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// The disk is filled up while a supervisor runs: it notes everything, however
// the notes grow, and so does the next one.
func TestFullDiskLater(t *testing.T) {
	path := small(t)
	run := path + "/orders-db"
	d := open(t, run)
	fill(t, path)
	for range 2 {
		for i, n := range []supervisor.Note{primary(1), largest(), {Role: sdk.RoleDemoting}, largest()} {
			if err := d.Save(n); err != nil {
				t.Fatalf("note %d: %v", i, err)
			}
			if err := d.SaveUntil(sdk.Instant(i)); err != nil {
				t.Fatalf("until %d: %v", i, err)
			}
		}
		d.Close()
		d = open(t, run)
		if n, err := d.Load(); err != nil || len(n.Promoted) != 32 {
			t.Fatalf("got %+v, %v", n, err)
		}
	}
}

// A supervisor starts on a disk that is full already: it may start, as there
// may be something to demote, and says that it cannot note a promotion.
func TestFullDiskAtStart(t *testing.T) {
	path := small(t)
	run := path + "/orders-db"
	if err := os.Mkdir(run, 0o750); err != nil {
		t.Fatal(err)
	}
	fill(t, path)
	d := open(t, run)
	if n, err := d.Load(); err != nil || n.Tenure != nil {
		t.Errorf("got %+v, %v, want no note", n, err)
	}
	if err := d.Save(primary(1)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("save: got %v, want that the disk is full", err)
	}
	if err := d.SaveUntil(1); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("save until: got %v, want that the disk is full", err)
	}
	if _, err := os.Stat(run + "/note"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a note is there: %v", err)
	}
	if err := os.Remove(path + "/full"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Save(primary(1)), d.SaveUntil(2)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// A damaged note on a full disk: still known to be damaged.
func TestFullDiskAndDamagedNote(t *testing.T) {
	path := small(t)
	if err := os.WriteFile(path+"/note", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, path)
	d := open(t, path)
	if _, err := d.Load(); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want that it is damaged", err)
	}
	if err := d.Save(primary(1)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want that the disk is full", err)
	}
}

func TestWitness(t *testing.T) {
	dir := t.TempDir() + "/lib"
	w := Witness(dir)
	if s, err := w.LoadSeen("orders-db"); err != nil || s != (supervisor.Seen{}) {
		t.Errorf("got %+v, %v, want nothing seen", s, err)
	}
	want := supervisor.Seen{Cluster: "cdf818194e3a8c32", Revision: 1 << 62, Term: 7}
	if err := w.SaveSeen("orders-db", want); err != nil {
		t.Fatal(err)
	}
	if s, err := w.LoadSeen("orders-db"); err != nil || s != want {
		t.Errorf("got %+v, %v, want %+v", s, err, want)
	}
	if s, err := w.LoadSeen("other"); err != nil || s != (supervisor.Seen{}) {
		t.Errorf("another service: got %+v, %v", s, err)
	}
	file := dir + "/orders-db/seen.json"
	var fields map[string]any
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &fields) != nil || len(fields) != 3 {
		t.Errorf("the file says %s, %v", text, err)
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("state directory: %v, %v", info, err)
	}

	// Nothing is written when nothing has changed.
	old := time.Unix(1, 0)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	if err := w.SaveSeen("orders-db", want); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("the same was written again: %v", err)
	}
	want.Term++
	if err := w.SaveSeen("orders-db", want); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + "/orders-db/*"); len(left) != 1 {
		t.Errorf("files left behind: %q", left)
	}

	if err := os.WriteFile(file, []byte(`{"cluster":"cd`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.LoadSeen("orders-db"); err == nil || !strings.Contains(err.Error(), file+" is damaged") {
		t.Errorf("got %v, want that it is damaged", err)
	}
	if err := w.SaveSeen("orders-db", want); err != nil {
		t.Errorf("a damaged file is not replaced: %v", err)
	}
}

// On a full disk what was seen before stays.
func TestWitnessOnAFullDisk(t *testing.T) {
	path := small(t)
	w := Witness(path)
	want := supervisor.Seen{Cluster: "c", Revision: 5, Term: 7}
	if err := w.SaveSeen("orders-db", want); err != nil {
		t.Fatal(err)
	}
	fill(t, path)
	if err := w.SaveSeen("orders-db", supervisor.Seen{Cluster: "c", Revision: 6, Term: 8}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want that the disk is full", err)
	}
	if s, err := w.LoadSeen("orders-db"); err != nil || s != want {
		t.Errorf("got %+v, %v, want what was seen before", s, err)
	}
}

func BenchmarkSave(b *testing.B) {
	d, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	for b.Loop() {
		if err := d.Save(primary(1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSaveUntil(b *testing.B) {
	d, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	for b.Loop() {
		if err := d.SaveUntil(1); err != nil {
			b.Fatal(err)
		}
	}
}
