package http

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// scrapeTime bounds how long a scrape waits for supervisors, well within the
// ten seconds that Prometheus waits for a scrape.
const scrapeTime = 2 * time.Second

var errScraped = errors.New("no answer within the time of a scrape")

// metrics returns the handler of GET /metrics: what all services of the node
// have counted, asked at the same time. One that does not answer is told as down,
// and costs a scrape no more than scrapeTime.
func metrics(n Node, now func() sdk.Instant) http.Handler {
	var m meter
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers := m.gather(r.Context(), n)
		open := acceptsOpen(r.Header.Values("Accept"))
		// The deadlines of leases are looked at last. Nothing is compressed: that
		// takes longer than it saves in any network that a cluster is in.
		parts := families(answers, now(), open)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if open {
			w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
			parts = append(parts, []byte("# EOF\n"))
		}
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return // whoever does not read the answer has gone
			}
		}
	})
}

// acceptsOpen reports whether whoever asks takes OpenMetrics 1.0.0. What asks for
// both likes it better: it is the newer one.
func acceptsOpen(accept []string) bool {
	for _, list := range accept {
		for one := range strings.SplitSeq(list, ",") {
			kind, parameters, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";")
			version := ""
			for p := range strings.SplitSeq(parameters, ";") {
				if v, ok := strings.CutPrefix(p, "version="); ok {
					version = v
				}
			}
			if kind == "application/openmetrics-text" && (version == "1.0.0" || version == "") {
				return true
			}
		}
	}
	return false
}

// An answer is what one supervisor says to a scrape.
type answer struct {
	supervisor.Figures
	up     bool   // else only the name is known
	labels string // its common ones, as they are written
}

// A meter remembers which services share a process: they are asked all at once.
type meter struct {
	mu      sync.Mutex
	process map[string]string // of services, when they answered last
}

// gather asks all services of a node, and returns their answers by name.
func (m *meter) gather(ctx context.Context, n Node) []answer {
	ctx, cancel := context.WithTimeoutCause(ctx, scrapeTime, errScraped)
	defer cancel()
	names := n.Services()
	slices.Sort(names)
	all := make([]answer, len(names))
	for i, name := range names {
		all[i].Service = name
	}
	var asking sync.WaitGroup
	for _, some := range m.together(names) {
		asking.Go(func() {
			told := make(map[string]supervisor.Figures)
			if len(some) > 1 {
				figures, _ := n.AllFigures(ctx, names[some[0]]) // else each for itself
				for _, f := range figures {
					told[f.Service] = f
				}
			}
			for _, i := range some {
				if f, ok := told[names[i]]; ok {
					all[i].Figures, all[i].up = f, true
					continue
				}
				asking.Go(func() {
					if f, err := n.Figures(ctx, names[i]); err == nil {
						all[i].Figures, all[i].up = f, true
					}
				})
			}
		})
	}
	asking.Wait()
	for i, name := range names {
		all[i].labels = string(appendLabel(appendLabel(nil, "service", name), "node", all[i].Node))
	}
	m.learn(all)
	return all
}

// together returns the places of names, those that share a process together.
func (m *meter) together(names []string) [][]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var groups [][]int
	of := make(map[string]int) // the group of a process
	for i, name := range names {
		process := m.process[name]
		if g, begun := of[process]; begun && process != "" {
			groups[g] = append(groups[g], i)
			continue
		}
		of[process] = len(groups)
		groups = append(groups, []int{i})
	}
	return groups
}

// learn takes note of which processes have answered.
func (m *meter) learn(answers []answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = make(map[string]string, len(answers))
	for _, a := range answers {
		m.process[a.Service] = a.Process
	}
}

// families writes all metrics of these answers, which are in order, as of now.
func families(answers []answer, now sdk.Instant, open bool) [][]byte {
	table := table()
	all := make([][]byte, len(table))
	var next atomic.Int32
	var writing sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		writing.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(table); i = int(next.Add(1)) - 1 {
				all[i] = table[i].family(answers, now, open)
			}
		})
	}
	writing.Wait()
	return all
}

// A kind is what the samples of a metric are.
type kind string

const (
	gauge     kind = "gauge"
	counter   kind = "counter"
	histogram kind = "histogram"
	summary   kind = "summary"
)

// A metric is one family of samples.
type metric struct {
	name   string
	kind   kind
	labels []string // those that tell samples of one service apart
	help   string
	// of adds what an answer of a supervisor has, at a time. Without it the
	// metric is about those that do not answer, too.
	of func(a *answer, now sdk.Instant, s *samples)
}

// family writes a metric, or nothing where there is none of it.
func (m *metric) family(answers []answer, now sdk.Instant, open bool) []byte {
	family := m.name
	if open {
		family = strings.TrimSuffix(family, "_total")
	}
	s := samples{metric: m, open: open}
	s.text = append(s.text, "# HELP "+family+" "+m.help+"\n# TYPE "+family+" "+string(m.kind)+"\n"...)
	head := len(s.text)
	for i := range answers {
		a := &answers[i]
		switch {
		case m.of == nil: // its node is what nobody has told
			s.common = string(appendLabel(nil, "service", a.Service))
			s.add(number(a.up))
		case a.up:
			s.common = a.labels
			m.of(a, now, &s)
		}
		if i == 0 { // the others are about as long
			s.text = slices.Grow(s.text, (len(s.text)-head)*len(answers)*5/4)
		}
	}
	if len(s.text) == head {
		return nil
	}
	return s.text
}

// samples are those of one metric, as they are written: the text format 0.0.4 of
// Prometheus or OpenMetrics 1.0.0. They are written here because there may be
// 100000: by way of the values that client_golang has for them it takes ten times
// as long, and longer than to ask all supervisors.
type samples struct {
	*metric
	open   bool
	common string // labels of the service that is being looked at
	text   []byte
}

// begin writes a sample up to its value. A suffix and a bound are those of
// histograms; the bound is empty for none.
func (s *samples) begin(suffix string, values []string, le string) {
	s.text = append(s.text, s.name...)
	s.text = append(s.text, suffix...)
	s.text = append(s.text, '{')
	s.text = append(s.text, s.common...)
	for i, v := range values {
		s.text = appendLabel(s.text, s.labels[i], v)
	}
	if le != "" {
		s.text = appendLabel(s.text, "le", le)
	}
	s.text = append(s.text, "} "...)
}

// add adds a gauge or a counter.
func (s *samples) add(value float64, values ...string) {
	s.begin("", values, "")
	s.text = append(s.appendFloat(s.text, value), '\n')
}

func (s *samples) whole(suffix string, n uint64, values []string, le string) {
	s.begin(suffix, values, le)
	s.text = append(strconv.AppendUint(s.text, n, 10), '\n')
}

// histogram adds a histogram.
func (s *samples) histogram(bounds []time.Duration, h supervisor.Histogram, values ...string) {
	if len(h.Counts) != len(bounds)+1 {
		return // there are none yet, or another version means something else by it
	}
	var sum uint64
	var le [32]byte
	for i, b := range bounds {
		sum += h.Counts[i]
		s.whole("_bucket", sum, values, string(s.appendFloat(le[:0], b.Seconds())))
	}
	sum += h.Counts[len(bounds)]
	s.whole("_bucket", sum, values, "+Inf")
	s.summary(sum, h.Sum, values...)
}

// summary adds a summary without quantiles.
func (s *samples) summary(count uint64, sum time.Duration, values ...string) {
	s.begin("_sum", values, "")
	s.text = append(s.appendFloat(s.text, sum.Seconds()), '\n')
	s.whole("_count", count, values, "")
}

// appendFloat appends a number, which in OpenMetrics has a point where it is a
// value and not a count.
func (s *samples) appendFloat(text []byte, f float64) []byte {
	from := len(text)
	if f == float64(int32(f)) && f < 1e6 { // most are; beyond, the library writes an exponent
		text = strconv.AppendInt(text, int64(f), 10)
	} else {
		text = strconv.AppendFloat(text, f, 'g', -1, 64)
	}
	if s.open && !slices.ContainsFunc(text[from:], func(c byte) bool { return c == '.' || c == 'e' }) {
		text = append(text, ".0"...)
	}
	return text
}

// appendLabel appends a label to those that are there.
func appendLabel(text []byte, name, value string) []byte {
	if len(text) > 0 && text[len(text)-1] != '{' {
		text = append(text, ',')
	}
	text = append(append(text, name...), `="`...)
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			text = append(text, '\\', c)
		case '\n':
			text = append(text, `\n`...)
		default:
			text = append(text, c)
		}
	}
	return append(text, '"')
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// stamp is a time as metrics tell it: seconds since 1970.
func stamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
