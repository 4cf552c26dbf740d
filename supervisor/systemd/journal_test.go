package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// entries returns what has arrived at a fake journald, each by its fields.
func (e *ear) entries() (all []map[string]string) {
	e.t.Helper()
	b, rights := make([]byte, 1<<20), make([]byte, 256)
	for {
		n, rn, _, _, err := unix.Recvmsg(e.fd, b, rights, 0)
		if errors.Is(err, unix.EAGAIN) {
			return all
		} else if err != nil {
			e.t.Fatal(err)
		}
		text := slices.Clone(b[:n])
		if rn > 0 {
			text = e.file(rights[:rn])
		}
		all = append(all, e.parse(text))
	}
}

// file reads the file that was handed over, as journald does: sealed.
func (e *ear) file(rights []byte) []byte {
	e.t.Helper()
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		e.t.Fatalf("control messages: %v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		e.t.Fatalf("descriptors: %v, %v", fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "received")
	defer f.Close()
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		e.t.Errorf("it is not sealed: %x, %v", seals, err)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 16<<20))
	if err != nil {
		e.t.Fatal(err)
	}
	return text
}

func (e *ear) parse(text []byte) map[string]string {
	e.t.Helper()
	fields := map[string]string{}
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if name, value, plain := bytes.Cut(line, []byte("=")); plain {
			fields[string(name)], text = string(value), rest
			continue
		}
		n := binary.LittleEndian.Uint64(rest)
		fields[string(line)] = string(rest[8 : 8+n])
		text = rest[8+n+1:]
	}
	return fields
}

// journal returns a log that ends in a fake journald.
func journal(t *testing.T) (*slog.Logger, *ear, *bytes.Buffer) {
	t.Helper()
	e := newEar(t, filepath.Join(t.TempDir(), "j"))
	var spare bytes.Buffer
	j, err := newJournal(e.path, slog.LevelDebug, &spare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return slog.New(j), e, &spare
}

func TestJournalTellsAStory(t *testing.T) {
	log, e, _ := journal(t)
	log = log.With("service", "orders-db", "node", "db2")
	log.Info("role changed", "from", "promoting", "role", "primary", "term", uint64(7), "cause", errors.New("db1 resigned"))
	log.Info("role changed", "from", "unknown", "role", "primary", "term", uint64(7), "cause", errors.New("taken over"))
	log.Info("role changed", "from", "primary", "role", "demoting", "term", uint64(7), "cause", fmt.Errorf("%w: no answer", supervisor.ErrLost))
	log.Info("role changed", "from", "demoting", "role", "standby", "cause", errors.New("told to stop"))
	log.Info("role changed", "from", "demoting", "role", "blocked", "term", uint64(7), "cause", errors.New("demote vip: no permission"))
	log.With("plugin", "vip").Warn("act failed", "action", "demote", "attempt", 2, "dur", 1500*time.Millisecond, "cause", errors.New("no permission"))
	log.Debug("act done")
	var story strings.Builder
	got := e.entries()
	for _, f := range got {
		fmt.Fprintf(&story, "%s %-32s %s\n", f["PRIORITY"], f["MESSAGE_ID"], f["MESSAGE"])
	}
	want := `5 50ced535b884493e8069624e563ce265 orders-db: primary of term 7 (promoting -> primary): db1 resigned
5 eaa66bd794904d8e8aaac27a340605ef orders-db: primary of term 7 (unknown -> primary): taken over
5 fbb9ca4b2f9d467992cbd90e9c284925 orders-db: demoting of term 7 (primary -> demoting): lease lost: no answer
5 451404f237654898a3fcdfdaeb6318e5 orders-db: standby (demoting -> standby): told to stop
3 a5e211b91cf54d748b4bf3c62c4992b5 orders-db: blocked in term 7 (demoting -> blocked): demote vip: no permission
4 8cf5cb2b2a574dbf9b09abbe30976d5b orders-db: vip: act failed (action=demote, attempt=2, dur=1.5s): no permission
7                                  orders-db: act done
`
	if story.String() != want {
		t.Errorf("the journal reads\n%swant\n%s", story.String(), want)
	}
	for name, want := range map[string]string{
		"DEPUTY_SERVICE": "orders-db", "DEPUTY_NODE": "db2", "DEPUTY_PLUGIN": "vip", "DEPUTY_CAUSE": "no permission",
		"DEPUTY_DUR_USEC": "1500000", "DEPUTY_ACTION": "demote", "DEPUTY_ATTEMPT": "2", "SYSLOG_IDENTIFIER": "deputy",
	} {
		if got[5][name] != want {
			t.Errorf("%s is %q, want %q", name, got[5][name], want)
		}
	}
	if got[0]["DEPUTY_TERM"] != "7" || got[0]["DEPUTY_ROLE"] != "primary" {
		t.Errorf("fields are %v", got[0])
	}
}

func TestJournalFields(t *testing.T) {
	log, e, _ := journal(t)
	log.With("a", 1).WithGroup("etcd").With("end-point", "x").Info("two\nlines", "a", 2, slog.Group("g", "b", true), "empty", "")
	log.With("a", 1).With("a", 3).Info("again")
	got := e.entries()
	if len(got) != 2 {
		t.Fatalf("%d entries", len(got))
	}
	for name, want := range map[string]string{
		"DEPUTY_A": "1", "DEPUTY_ETCD_A": "2", "DEPUTY_ETCD_END_POINT": "x", "DEPUTY_ETCD_G_B": "true", "DEPUTY_ETCD_EMPTY": "",
	} {
		if v, there := got[0][name]; v != want || !there {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if !strings.HasPrefix(got[0]["MESSAGE"], "two\nlines (") {
		t.Errorf("MESSAGE is %q", got[0]["MESSAGE"])
	}
	if got[1]["DEPUTY_A"] != "3" {
		t.Errorf("a later attribute does not replace an earlier one: %v", got[1])
	}
}

func TestJournalTakesWhatIsLarge(t *testing.T) {
	log, e, spare := journal(t)
	large := strings.Repeat("0123456789", 1<<19)
	log.Info("large", "cause", large)
	got := e.entries()
	if len(got) != 1 || got[0]["DEPUTY_CAUSE"] != large {
		t.Errorf("%d entries arrived; %d bytes went beside", len(got), spare.Len())
	}
}

// A journald that hangs holds up nobody; what it missed is told.
func TestJournalDoesNotWait(t *testing.T) {
	log, e, _ := journal(t)
	began, filler := time.Now(), strings.Repeat("x", 10_000)
	for range 2000 { // more than a socket holds
		log.Info("hello", "filler", filler)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	arrived := len(e.entries())
	log.Info("well again")
	last := e.entries()
	if len(last) != 2 || last[0]["MESSAGE"] != "well again" || !strings.HasPrefix(last[1]["MESSAGE"], fmt.Sprintf("%d messages", 2000-arrived)) {
		t.Errorf("after %d of 2000: %v", arrived, last)
	}
}

func TestJournalIsGone(t *testing.T) {
	log, e, spare := journal(t)
	unix.Close(e.fd)
	e.fd, _ = unix.Dup(2) // for the clean-up
	log.Info("hello", "service", "orders")
	if got := spare.String(); got != "orders: hello\n" {
		t.Errorf("went beside: %q", got)
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		"": false, "1:1": false, "x": false,
		fmt.Sprintf("%d:%d", s.Dev, s.Ino): true, fmt.Sprintf("%d:%d", s.Dev, s.Ino+1): false,
	} {
		if got := IsJournal(func(string) string { return stream }, f); got != want {
			t.Errorf("JOURNAL_STREAM=%s: got %v, want %v", stream, got, want)
		}
	}
}

func TestLevels(t *testing.T) {
	log, e, _ := journal(t)
	j := log.Handler().(*Journal)
	level := new(slog.LevelVar)
	j.level = level
	if j.Enabled(context.Background(), slog.LevelDebug) || !j.Enabled(context.Background(), slog.LevelInfo) {
		t.Error("the level is not that of the log")
	}
	level.Set(slog.LevelDebug)
	log.Debug("fine")
	if len(e.entries()) != 1 {
		t.Error("a new level does not count")
	}
}

// Each event is in the catalog, and the other way round; each message by which
// an event is known is one that is logged.
func TestCatalog(t *testing.T) {
	b, err := os.ReadFile("../../packaging/systemd/deputy.catalog")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, entry := range regexp.MustCompile(`(?m)^-- `).Split(string(b), -1)[1:] {
		id, text, _ := strings.Cut(entry, "\n")
		if texts[id] != "" {
			t.Errorf("%s is there twice", id)
		}
		texts[id] = text
	}
	source := sources(t)
	ids := map[string]bool{}
	for _, e := range Events() {
		if ids[e.ID] || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(e.ID) {
			t.Errorf("%s: ID %q is not one of its own", e.Name, e.ID)
		}
		ids[e.ID] = true
		text := texts[e.ID]
		if !regexp.MustCompile(`^Subject: .+\nDefined-By: deputy\nDocumentation: man:.+\n\n(?s).{40,}`).MatchString(text) {
			t.Errorf("%s: the catalog has %q", e.Name, text)
		}
		if !strings.Contains(text, "to do") {
			t.Errorf("%s: the catalog does not tell what to do", e.Name)
		}
		for _, field := range regexp.MustCompile(`@[^@\s]*@?`).FindAllString(text, -1) {
			if !regexp.MustCompile(`^@(DEPUTY_[A-Z]+|_HOSTNAME)@$`).MatchString(field) {
				t.Errorf("%s: %s is no field", e.Name, field)
			}
		}
		for _, m := range e.Texts {
			if !strings.Contains(source, fmt.Sprintf("%q", m)) {
				t.Errorf("%s: nobody logs %q", e.Name, m)
			}
		}
	}
	for id := range texts {
		if !ids[id] {
			t.Errorf("the catalog has %s, which is no event", id)
		}
	}
	if !strings.Contains(source, `.Info("`+roleChanged+`"`) {
		t.Errorf("nobody logs %q", roleChanged)
	}
}

// journald's own program takes the catalog, and has each of its entries.
func TestCatalogIsTaken(t *testing.T) {
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		t.Skip("needs journalctl")
	}
	b, err := os.ReadFile("../../packaging/systemd/deputy.catalog")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	source := filepath.Join(root, "usr/lib/systemd/catalog")
	err = errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(filepath.Join(root, "var/lib/systemd/catalog"), 0o755),
		os.WriteFile(filepath.Join(source, "deputy.catalog"), b, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(journalctl, "--root="+root, "--update-catalog").CombinedOutput(); err != nil {
		t.Fatalf("not taken: %v\n%s", err, out)
	}
	list, err := exec.Command(journalctl, "--root="+root, "--list-catalog").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range Events() {
		if !strings.Contains(string(list), e.ID) {
			t.Errorf("%s is not in what journalctl made of it:\n%s", e.Name, list)
		}
	}
}

// sources is the text of what logs, but for the table of events itself.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range []string{"../*.go", "../plugin/*.go", "../deputy/*.go", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") || f == "events.go" {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
	}
	return all.String()
}

func TestEventOfEachRole(t *testing.T) {
	for role, want := range map[sdk.Role]Event{
		sdk.RolePrimary: becamePrimary, sdk.RoleStandby: becameStandby, sdk.RoleBlocked: cannotDemote, sdk.RoleFailed: cannotDemote,
		sdk.RoleCandidate: {}, sdk.RolePromoting: {}, sdk.RoleDemoting: {},
	} {
		if got := eventOf(roleChanged, []slog.Attr{slog.String("role", string(role)), slog.String("from", "x")}); got.ID != want.ID {
			t.Errorf("%s is %q, want %q", role, got.Name, want.Name)
		}
	}
}
