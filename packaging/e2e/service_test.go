package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/deputy-ha/deputy/packaging/e2e/prober"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// A watched service is one that the prober asks for.
type watched struct {
	*prober.Service
	lab     *lab
	name    string
	manages string         // a unit; empty for none
	client  netip.AddrPort // where clients ask; zero where they ask each host
	at      func(h *host) netip.AddrPort
	text    string // of its definition, with a place for more settings
}

// service is the one that every lab has.
const service = "orders"

// ordersService is an address that answers.
func ordersService(ttl time.Duration) *watched {
	at := netip.AddrPortFrom(serviceAddr(), answersPort)
	return &watched{
		name: service, client: at, at: func(*host) netip.AddrPort { return at },
		text: fmt.Sprintf(`description = "An address that answers"
ttl = %q
%%s
[[plugin]]
use    = "vip"
config = { address = "%s/32", interface = "host0" }
`, ttl, serviceAddr()),
	}
}

// queueService is a unit that answers, behind a guarded port.
func queueService(ttl time.Duration) *watched {
	return unitService("queue", "worker.service", ttl, workerPort, fmt.Sprintf(`[[plugin]]
use    = "guard"
config = { ports = ["udp/%d"], action = "drop" }
`, workerPort))
}

// parserService is a unit that answers; nothing but its end keeps it from that.
func parserService(ttl time.Duration) *watched {
	return unitService("parser", "parser.service", ttl, parserPort, "")
}

func unitService(name, unit string, ttl time.Duration, port uint16, more string) *watched {
	return &watched{
		name: name, manages: unit, at: func(h *host) netip.AddrPort { return netip.AddrPortFrom(h.addr, port) },
		text: fmt.Sprintf(`description = "A unit that answers"
ttl = %q
%%s
[[plugin]]
use    = "systemd"
config = { units = [%q] }
check  = { interval = "1s" }
%s`, ttl, unit, more),
	}
}

// watch has the prober ask for a service.
func (l *lab) watch(w *watched) *watched {
	w.lab, w.Service = l, l.probe.Service()
	if w.client.IsValid() {
		w.Ask(w.client)
	}
	l.services = append(l.services, w)
	return w
}

// file is where its definition is.
func (w *watched) file() string { return "/etc/deputy/services.d/" + w.name + ".toml" }

// unit is its supervisor's.
func (w *watched) unit() string { return "deputy@" + w.name + ".service" }

// define writes its definition, with further settings.
func (w *watched) define(h *host, more string) error {
	return h.write(w.file(), fmt.Sprintf(w.text, more))
}

// records are what etcd has about the service.
type records struct {
	primary    supervisor.Primary // zero when there is none
	candidates map[string]supervisor.Candidate
}

func (w *watched) records(ctx context.Context) (records, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	prefix := "/deputy/v1/services/" + w.name + "/"
	reply, err := w.lab.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return records{}, fmt.Errorf("read the records: %w", err)
	}
	r := records{candidates: make(map[string]supervisor.Candidate)}
	for _, kv := range reply.Kvs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		if key == "primary" {
			if err := json.Unmarshal(kv.Value, &r.primary); err != nil {
				return records{}, err
			}
		} else if node, ok := strings.CutPrefix(key, "candidates/"); ok {
			var c supervisor.Candidate
			if err := json.Unmarshal(kv.Value, &c); err != nil {
				return records{}, err
			}
			r.candidates[node] = c
		}
	}
	return r, nil
}

// isServed reports whether a primary of a later term answers.
func (w *watched) isServed(r records, after sdk.Term) bool {
	who, ago := w.Answering()
	return r.primary.State == sdk.RolePrimary && r.primary.Term > after && who == r.primary.Node && ago < 100*time.Millisecond
}

// isSettled reports whether, besides, all other hosts that are on are
// candidates.
func (w *watched) isSettled(r records, after sdk.Term) bool {
	for _, h := range w.lab.hosts {
		c, ok := r.candidates[h.name]
		role := sdk.RoleCandidate
		if h.name == r.primary.Node {
			role = sdk.RolePrimary
		}
		if h.isOn() && (!ok || c.Role != role) {
			return false
		}
	}
	return w.isServed(r, after)
}

// settled waits until the service has a primary in a term after the given one,
// and all that are on take part.
func (w *watched) settled(ctx context.Context, after sdk.Term) (supervisor.Primary, error) {
	return w.until(ctx, after, w.isSettled)
}

// until waits until the records are as they should be.
func (w *watched) until(ctx context.Context, after sdk.Term, ok func(r records, after sdk.Term) bool) (supervisor.Primary, error) {
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	var r records // what was read last
	for {
		read, err := w.records(ctx)
		if err == nil {
			r = read
		}
		if err == nil && ok(r, after) {
			return r.primary, nil
		}
		select {
		case <-ctx.Done():
			who, ago := w.Answering()
			roles := make(map[string]string)
			for node, c := range r.candidates {
				roles[node] = fmt.Sprintf("%s (%s)", c.Role, c.Verdict)
			}
			return r.primary, fmt.Errorf("the role of %s is not settled within %s in a term after %d: primary is %+v, the others are %v, %s answered %s ago", w.name, settleFor, after, r.primary, roles, who, ago)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
