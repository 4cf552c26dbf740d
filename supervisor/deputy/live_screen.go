package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/deputy-ha/deputy/supervisor"
)

// A live is the live screen: services, and the whole of the chosen one.
type live struct {
	screen screen
	zone   *time.Location // of the times that are shown
	orders interface {
		choose(service string)
		order(args []string) bool
	}
	reports []supervisor.Report // what needs somebody first
	err     error               // why there are none
	at      time.Time           // when they were read
	chosen  string
	past    past

	question *question
	running  string   // the command that is carried out
	told     []string // what it said
}

// A question is asked before anything is done.
type question struct {
	options []option // tab shows the next
	at      int
}

// An option is one thing to do: a command, and what it will do in words.
type option struct {
	args []string
	what string
}

func newLive(s screen, f *feed) live { return live{screen: s, zone: time.Local, orders: f} }

// Init waits to be told.
func (l live) Init() tea.Cmd { return nil }

// Update takes in what was pressed or has come.
func (l live) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		l.screen.width, l.screen.height = m.Width, m.Height
	case seen:
		l.see(m)
	case past:
		l.past = m
	case said:
		l.told = append(l.told, string(m))
	case ended:
		if m.err != nil {
			l.told = append(l.told, m.err.Error())
		}
		l.told = append(l.told, "done: "+l.running)
		if m.err != nil {
			l.told[len(l.told)-1] = "not done: " + l.running
		}
		l.running = ""
	case tea.KeyPressMsg:
		return l.press(m.String())
	}
	return l, nil
}

// see takes in how things are. The chosen service stays chosen.
func (l *live) see(s seen) {
	l.err, l.at = s.err, s.at
	if s.err != nil && len(s.reports) == 0 {
		return // what was seen last is still the best there is
	}
	l.reports = heaviestFirst(s.reports, s.at)
	if l.index() < 0 && len(l.reports) > 0 {
		l.choose(0)
	}
}

// index is where the chosen service is; below zero for nowhere.
func (l live) index() int {
	return slices.IndexFunc(l.reports, func(r supervisor.Report) bool { return r.Service == l.chosen })
}

func (l *live) choose(i int) {
	l.chosen = l.reports[max(0, min(i, len(l.reports)-1))].Service
	l.orders.choose(l.chosen)
}

func (l live) press(key string) (tea.Model, tea.Cmd) {
	if key == "ctrl+c" {
		return l, tea.Quit
	}
	if l.question != nil {
		return l.answer(key), nil
	}
	if key == "q" || key == "esc" {
		return l, tea.Quit
	}
	i := l.index()
	if i < 0 {
		return l, nil
	}
	switch key {
	case "up", "k":
		l.choose(i - 1)
	case "down", "j":
		l.choose(i + 1)
	case "home", "g":
		l.choose(0)
	case "end", "G":
		l.choose(len(l.reports) - 1)
	case "s", "p", "d":
		if l.running != "" {
			break // one thing at a time
		}
		l.told = nil
		options, why := map[string]func(supervisor.Report) ([]option, string){"s": moves, "p": pauses, "d": drains}[key](l.reports[i])
		if len(options) == 0 {
			l.told = []string{why}
			break
		}
		l.question = &question{options: options}
	}
	return l, nil
}

// answer takes the answer to the question. Only y is yes.
func (l live) answer(key string) live {
	q := *l.question
	switch key {
	case "tab", "right", "left", "shift+tab":
		step := 1
		if key == "left" || key == "shift+tab" {
			step = len(q.options) - 1
		}
		q.at = (q.at + step) % len(q.options)
		l.question = &q
	case "y":
		l.question = nil
		args := q.options[q.at].args
		if !l.orders.order(args) {
			l.told = []string{"something else is being carried out: try again"}
			break
		}
		l.running = "deputy " + strings.Join(args, " ")
	default:
		l.question = nil
		l.told = []string{"nothing is done"}
	}
	return l
}

// moves are the switchovers that there can be, to who ranks first at first.
func moves(r supervisor.Report) (all []option, why string) {
	if r.Primary == nil || r.Vacant {
		return nil, "there is no primary to move the role from: `deputy explain " + r.Service + "` tells why"
	}
	able := slices.DeleteFunc(slices.Clone(r.Nodes), func(n supervisor.NodeReport) bool { return n.Place == 0 || n.Node == r.Primary.Node })
	slices.SortFunc(able, func(a, b supervisor.NodeReport) int { return a.Place - b.Place })
	for _, n := range able {
		all = append(all, option{
			[]string{"switchover", r.Service, "--to", n.Node},
			fmt.Sprintf("%s demotes, then %s promotes; when %[1]s cannot leave in time it stays primary", r.Primary.Node, n.Node),
		})
	}
	return all, "nobody could take the role: `deputy explain " + r.Service + "` tells why"
}

// watchPause is how long a pause is for that is made here: an end that nobody
// has to think of.
const watchPause = "1h"

func pauses(r supervisor.Report) ([]option, string) {
	if r.Pause != nil {
		return []option{{[]string{"resume", r.Service}, "automatic take-overs happen again"}}, ""
	}
	return []option{{
		[]string{"pause", r.Service, "--for", watchPause},
		"nobody takes over by itself for " + watchPause + "; a demotion that safety asks for happens all the same",
	}}, ""
}

// drains are the nodes to drain or undrain, the primary at first.
func drains(r supervisor.Report) (all []option, why string) {
	nodes := slices.Clone(r.Nodes)
	slices.SortStableFunc(nodes, func(a, b supervisor.NodeReport) int {
		is := func(n supervisor.NodeReport) int {
			if r.Primary != nil && r.Primary.Node == n.Node {
				return 0
			}
			return 1
		}
		return is(a) - is(b)
	})
	for _, n := range nodes {
		if n.Drained {
			all = append(all, option{[]string{"undrain", n.Node}, n.Node + " may lead again, whatever the service"})
			continue
		}
		all = append(all, option{[]string{"drain", n.Node}, n.Node + " hands over all that it leads, whatever the service, and leads nothing until it is undrained"})
	}
	return all, "no node is known"
}

// View is the whole screen.
func (l live) View() tea.View {
	v := tea.NewView(strings.Join(l.page(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "deputy watch"
	return v
}

// page is the lines of the screen: as many as it has, none longer than it is
// wide.
func (l live) page() []string {
	foot := l.foot()
	height := max(l.screen.height, 10)
	head := []string{l.screen.paint(bold, "deputy watch") + "  " + l.at.In(l.zone).Format(time.TimeOnly) + l.fault()}
	body := l.list(max(3, (height-len(foot))/3))
	body = append(body, "")
	body = append(body, l.details()...)
	room := height - len(head) - len(foot)
	if len(body) > room {
		body = append(body[:room-1], l.screen.paint(faint, fmt.Sprintf("... %d more lines: deputy status %s", len(body)-room+1, l.chosen)))
	}
	for len(body) < room {
		body = append(body, "")
	}
	return slices.Concat(head, body, foot)
}

// fault tells why what is shown may be old.
func (l live) fault() string {
	switch {
	case l.at.IsZero():
		return "  asking ..."
	case l.err != nil:
		return "  " + l.screen.paint(bad, crop(tidy(l.err.Error()), l.screen.width-24))
	case len(l.reports) == 0:
		return "  no services"
	}
	return ""
}

// list is a line for each service, those around the chosen one where not all
// have room.
func (l live) list(room int) []string {
	t := table{head: append([]string{" "}, listHead()...), oneLine: true}
	for _, r := range l.reports {
		mark := cell{" ", plain}
		if r.Service == l.chosen {
			mark = cell{">", bold}
		}
		t.add(append([]cell{mark}, listCells(r, l.at)...)...)
	}
	var b strings.Builder
	t.write(&b, l.screen, "")
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if len(lines) <= room+1 {
		return lines
	}
	from := max(0, min(l.index()-room/2, len(l.reports)-room))
	return append(lines[:1:1], lines[1+from:1+from+room]...)
}

// details are those of the chosen service.
func (l live) details() []string {
	i := l.index()
	if i < 0 {
		return nil
	}
	var b strings.Builder
	reportText(&b, l.reports[i], l.screen, l.at, true)
	if l.past.service == l.chosen {
		newest := l.past.changes[max(0, len(l.past.changes)-3):]
		b.WriteString("\n" + historyText(newest, l.screen, l.zone))
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// maxTold is how many lines of an order are shown.
const maxTold = 6

// foot is what is asked, what happens, or which keys there are.
func (l live) foot() []string {
	lines := []string{""}
	add := func(st style, text string) {
		for _, line := range wrap(tidy(text), l.screen.width) {
			lines = append(lines, l.screen.paint(st, line))
		}
	}
	for _, t := range l.told[max(0, len(l.told)-maxTold):] {
		add(plain, t)
	}
	switch q := l.question; {
	case q != nil:
		o := q.options[q.at]
		add(moving, "deputy "+strings.Join(o.args, " ")+": "+o.what+".")
		keys := "y does it, any other key does not"
		if len(q.options) > 1 {
			keys += fmt.Sprintf(", tab shows another (%d of %d)", q.at+1, len(q.options))
		}
		add(bold, keys)
	case l.running != "":
		add(moving, "carries out "+l.running+" ...; it goes on by itself when you leave")
	default:
		add(faint, "up/down choose · s switchover · p pause/resume · d drain/undrain · q leave")
	}
	return lines
}
