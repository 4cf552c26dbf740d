package etcd

import (
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// keys names the records under PREFIX/v1/.
type keys struct{ root string }

func newKeys(prefix string) keys { return keys{root: strings.TrimRight(prefix, "/") + "/v1/"} }

// prefix is what newKeys was given.
func (k keys) prefix() string { return strings.TrimSuffix(k.root, "/v1/") }

func (k keys) origin() string              { return k.root + "origin" }
func (k keys) pulses() span                { return under(k.root + "pulses/") }
func (k keys) pulse(id string) string      { return k.root + "pulses/" + id }
func (k keys) nodes() span                 { return under(k.root + "nodes/") }
func (k keys) node(node string) string     { return k.root + "nodes/" + node }
func (k keys) services() span              { return under(k.root + "services/") }
func (k keys) service(name string) string  { return k.root + "services/" + name + "/" }
func (k keys) primary(name string) string  { return k.service(name) + "primary" }
func (k keys) term(name string) string     { return k.service(name) + "term" }
func (k keys) reserved(name string) string { return k.service(name) + "reservation" }
func (k keys) pause(name string) string    { return k.service(name) + "pause" }
func (k keys) bans(name string) span       { return under(k.service(name) + "bans/") }
func (k keys) ban(name, node string) string {
	return k.service(name) + "bans/" + node
}
func (k keys) history(name string) span    { return under(k.service(name) + "history/") }
func (k keys) candidates(name string) span { return under(k.service(name) + "candidates/") }
func (k keys) notified(name string) span   { return under(k.service(name) + "notified/") }
func (k keys) candidate(name, node string) string {
	return k.service(name) + "candidates/" + node
}

func (k keys) change(name string, term sdk.Term) string {
	return k.service(name) + "history/" + strconv.FormatUint(uint64(term), 10)
}

// notice is the key of a notice, whose event has an ID that begins with the
// service's name.
func (k keys) notice(n supervisor.Notice) string {
	return k.root + "services/" + n.Event.Service + "/notified" + strings.TrimPrefix(n.Event.ID, n.Event.Service) + "/" + n.Receiver
}

// state is the records of a service but for its past, which is long: what was
// and who has been told of it.
func (k keys) state(name string) []span {
	s := k.service(name)
	history, notified := k.history(name), k.notified(name)
	return []span{{s, history.key}, {history.end, notified.key}, {notified.end, under(s).end}}
}

// split tells which service a key belongs to, and its name within it.
func (k keys) split(key string) (service, rest string, ok bool) {
	tail, ok := strings.CutPrefix(key, k.root+"services/")
	if !ok {
		return "", "", false
	}
	return cut(tail)
}

func cut(tail string) (service, rest string, ok bool) {
	service, rest, ok = strings.Cut(tail, "/")
	return service, rest, ok && service != "" && rest != ""
}
