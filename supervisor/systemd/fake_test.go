package systemd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A fakePID1 answers on a socket of its own as systemd does, as far as it is
// asked here: units with their dependencies, jobs that take their time and end
// with a signal, and control groups.
type fakePID1 struct {
	t        *testing.T
	listener net.Listener
	running  sync.WaitGroup

	mu         sync.Mutex
	units      map[string]*fakeUnit
	lines      map[*fakeLine]bool
	jobs       uint32
	state      string // of the whole system
	heard      bool   // somebody wants to hear of jobs, as a bus has to be told
	calls      []string
	subscribed bool
	deaf       bool // takes calls, and answers none
	accepted   int
}

type fakeUnit struct {
	load    string
	active  string
	deps    map[string][]string // Wants, ConsistsOf, …
	slow    time.Duration       // a start or a stop takes so long
	hangs   bool                // a stop never ends, but by a kill
	spared  int                 // processes that a stop leaves, until they are killed
	denied  bool                // for this user
	result  string              // of a start; empty is done
	leaving int                 // so many starts are in the way of another job
	job     uint32
	jobType string
	sudden  bool // its job ends when somebody asks what it is
}

type fakeLine struct {
	mu   sync.Mutex
	conn net.Conn
}

func newFakePID1(t *testing.T) *fakePID1 {
	t.Helper()
	dir, err := os.MkdirTemp("", "b") // paths of sockets have to be short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePID1{t: t, listener: l, units: map[string]*fakeUnit{}, lines: map[*fakeLine]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.drop()
		p.running.Wait()
		os.RemoveAll(dir)
	})
	return p
}

// bus is a Bus that is connected to this PID 1.
func (p *fakePID1) bus() *Bus {
	b := &Bus{addresses: []string{"unix:path=" + p.listener.Addr().String()}, opening: make(chan struct{}, 1)}
	p.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			p.t.Errorf("close the bus: %v", err)
		}
	})
	return b
}

// unit adds a unit, or changes one.
func (p *fakePID1) unit(name string, change func(*fakeUnit)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p.get(name))
}

func (p *fakePID1) get(name string) *fakeUnit {
	u := p.units[name]
	if u == nil {
		u = &fakeUnit{load: "loaded", active: "inactive", deps: map[string][]string{}}
		p.units[name] = u
	}
	return u
}

// depends adds a dependency, and its inverse.
func (p *fakePID1) depends(unit, dependency, on string) {
	inverse := map[string]string{"PartOf": "ConsistsOf", "BindsTo": "BoundBy", "Wants": "WantedBy", "Requires": "RequiredBy"}
	p.unit(unit, func(u *fakeUnit) { u.deps[dependency] = append(u.deps[dependency], on) })
	p.unit(on, func(u *fakeUnit) { u.deps[inverse[dependency]] = append(u.deps[inverse[dependency]], unit) })
}

func (p *fakePID1) active(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.get(name).active
}

// called returns the calls that change something, such as "StopUnit a.service".
func (p *fakePID1) called() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// drop breaks all connections.
func (p *fakePID1) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.conn.Close()
	}
}

func (p *fakePID1) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &fakeLine{conn: conn}
		p.mu.Lock()
		p.lines[l] = true
		p.accepted++
		p.mu.Unlock()
		p.running.Go(func() {
			p.serve(l)
			conn.Close()
			p.mu.Lock()
			delete(p.lines, l)
			p.mu.Unlock()
		})
	}
}

func (p *fakePID1) serve(l *fakeLine) {
	in := bufio.NewReader(l.conn)
	if _, err := in.ReadByte(); err != nil {
		return
	}
	for {
		line, err := in.ReadString('\n')
		switch line = strings.TrimSpace(line); {
		case err != nil:
			return
		case line == "AUTH":
			fmt.Fprint(l.conn, "REJECTED EXTERNAL\r\n")
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			fmt.Fprint(l.conn, "OK 0123456789abcdef0123456789abcdef\r\n")
		case line == "BEGIN":
			p.answer(l, in)
			return
		default:
			fmt.Fprint(l.conn, "ERROR\r\n")
		}
	}
}

func (p *fakePID1) answer(l *fakeLine, in io.Reader) {
	for {
		m, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		p.mu.Lock()
		if !p.deaf {
			body, err := p.method(m)
			reply := &dbus.Message{Type: dbus.TypeMethodReply, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{}}
			if fault := (fakeError{}); errors.As(err, &fault) {
				reply.Type, reply.Body = dbus.TypeError, []any{fault.text}
				reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(fault.name)
			}
			reply.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(m.Serial())
			l.send(reply)
		}
		p.mu.Unlock()
	}
}

func (l *fakeLine) send(m *dbus.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Headers[dbus.FieldSender] = dbus.MakeVariant(":1.0")
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	_ = m.EncodeTo(l.conn, binary.LittleEndian) // who is gone is told nothing
}

type fakeError struct{ name, text string }

func (e fakeError) Error() string { return e.text }

// method does what a call asks for. The caller holds mu.
func (p *fakePID1) method(m *dbus.Message) ([]any, error) {
	member := m.Headers[dbus.FieldMember].Value().(string)
	path := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	arg := func(i int) string { s, _ := m.Body[i].(string); return s }
	change := func() error {
		name := arg(0)
		p.calls = append(p.calls, member+" "+name)
		u := p.get(name)
		switch {
		case u.denied:
			return fakeError{"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required."}
		case u.leaving > 0 && member == "StartUnit" && m.Body[1] == "fail":
			u.leaving--
			return fakeError{"org.freedesktop.systemd1.TransactionIsDestructive", "Transaction is destructive."}
		case u.load == "not-found":
			return fakeError{"org.freedesktop.systemd1.NoSuchUnit", "Unit " + name + " not found."}
		}
		return nil
	}
	switch member {
	case "Hello":
		return []any{":1.1"}, nil
	case "AddMatch":
		p.heard = p.heard || strings.Contains(arg(0), "member='JobRemoved'")
		return nil, nil
	case "Subscribe":
		if p.subscribed {
			return nil, fakeError{"org.freedesktop.systemd1.AlreadySubscribed", "Already subscribed."}
		}
		p.subscribed = true
		return nil, nil
	case "GetAll":
		return []any{p.properties(path)}, nil
	case "Get":
		if arg(1) == "SystemState" {
			return []any{dbus.MakeVariant(p.state)}, nil
		}
		for _, u := range p.units {
			if u.job != 0 && jobPath(u.job) == path {
				if u.sudden {
					u.active, u.job = "active", 0
					break
				}
				return []any{dbus.MakeVariant(u.jobType)}, nil
			}
		}
		return nil, fakeError{"org.freedesktop.DBus.Error.UnknownObject", "Unknown object"}
	case "StartUnit", "StopUnit":
		if err := change(); err != nil {
			return nil, err
		}
		if member == "StartUnit" {
			return []any{jobPath(p.start(arg(0)))}, nil
		}
		return []any{jobPath(p.stop(arg(0)))}, nil
	case "KillUnit":
		if err := change(); err != nil {
			return nil, err
		}
		u := p.get(arg(0))
		u.spared = 0
		if u.hangs && u.job != 0 {
			u.hangs = false
			p.end(arg(0), u.job, "inactive", "done")
		}
		return nil, nil
	case "ResetFailedUnit":
		return nil, change()
	case "GetUnitProcesses":
		type process struct {
			Group   string
			PID     uint32
			Command string
		}
		return []any{make([]process, p.get(arg(0)).spared)}, nil
	}
	return nil, fakeError{"org.freedesktop.DBus.Error.UnknownMethod", "Unknown method " + member}
}

func (p *fakePID1) properties(path dbus.ObjectPath) map[string]dbus.Variant {
	all := map[string]dbus.Variant{"LoadState": dbus.MakeVariant("not-found"), "ActiveState": dbus.MakeVariant("inactive")}
	for name, u := range p.units {
		if pathOf(name) != path {
			continue
		}
		all["LoadState"], all["ActiveState"], all["SubState"] = dbus.MakeVariant(u.load), dbus.MakeVariant(u.active), dbus.MakeVariant("")
		for d, list := range u.deps {
			all[d] = dbus.MakeVariant(list)
		}
		type job struct {
			ID   uint32
			Path dbus.ObjectPath
		}
		all["Job"] = dbus.MakeVariant(job{u.job, jobPath(u.job)})
	}
	return all
}

func jobPath(id uint32) dbus.ObjectPath {
	if id == 0 {
		return "/"
	}
	return dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
}

// start begins the start of a unit with all that it pulls in.
func (p *fakePID1) start(name string) uint32 {
	u := p.get(name)
	if u.active == "active" {
		return p.enqueue(name, "start", 0, func() (string, string) { return "active", "done" })
	}
	first := slices.Concat(u.deps["Requires"], u.deps["BindsTo"], u.deps["Wants"])
	for _, d := range first {
		if p.get(d).active != "active" && p.get(d).job == 0 {
			p.start(d)
		}
	}
	return p.enqueue(name, "start", u.slow, func() (string, string) {
		if slices.ContainsFunc(first, func(d string) bool { return p.get(d).jobType == "start" }) {
			return "", "" // they come first
		}
		for _, d := range slices.Concat(u.deps["Requires"], u.deps["BindsTo"]) {
			if p.get(d).active != "active" {
				return "inactive", "dependency"
			}
		}
		if u.result != "" {
			return "failed", u.result
		}
		return "active", "done"
	})
}

// stop begins the stop of a unit with all that depends on it.
func (p *fakePID1) stop(name string) uint32 {
	u := p.get(name)
	for _, d := range slices.Concat(u.deps["ConsistsOf"], u.deps["BoundBy"], u.deps["RequiredBy"]) {
		if other := p.get(d); other.active == "active" && other.jobType != "stop" {
			p.stop(d)
		}
	}
	if u.job != 0 && u.jobType == "stop" {
		return u.job
	}
	if u.active == "active" {
		u.active = "deactivating"
	}
	if u.hangs {
		p.jobs++
		u.job, u.jobType = p.jobs, "stop"
		return u.job
	}
	return p.enqueue(name, "stop", u.slow, func() (string, string) { return "inactive", "done" })
}

// enqueue has a job end after some time.
func (p *fakePID1) enqueue(name, kind string, after time.Duration, end func() (active, result string)) uint32 {
	p.jobs++
	id, u := p.jobs, p.get(name)
	u.job, u.jobType = id, kind
	p.running.Go(func() {
		time.Sleep(after)
		for !p.try(name, id, end) {
			time.Sleep(time.Millisecond)
		}
	})
	return id
}

// try ends a job, if what it waits for is over.
func (p *fakePID1) try(name string, id uint32, end func() (active, result string)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.get(name).job != id {
		p.emit(name, id, "canceled")
		return true
	}
	active, result := end()
	if result == "" {
		return false
	}
	p.end(name, id, active, result)
	return true
}

func (p *fakePID1) end(name string, id uint32, active, result string) {
	u := p.get(name)
	u.active, u.job, u.jobType = active, 0, ""
	p.emit(name, id, result)
	p.changed(name)
}

// changed tells that a unit has changed, to all who have subscribed.
func (p *fakePID1) changed(name string) {
	for l := range p.lines {
		if p.subscribed {
			l.send(&dbus.Message{Type: dbus.TypeSignal, Body: []any{unitInterface, map[string]dbus.Variant{}, []string{}}, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(pathOf(name)), dbus.FieldInterface: dbus.MakeVariant(propertiesInterface), dbus.FieldMember: dbus.MakeVariant("PropertiesChanged"),
			}})
		}
	}
}

func (p *fakePID1) emit(name string, id uint32, result string) {
	if !p.heard {
		return
	}
	for _, l := range slices.Collect(maps.Keys(p.lines)) {
		l.send(&dbus.Message{Type: dbus.TypeSignal, Body: []any{id, jobPath(id), name, result}, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(busPath), dbus.FieldInterface: dbus.MakeVariant(rootInterface), dbus.FieldMember: dbus.MakeVariant("JobRemoved"),
		}})
	}
}
