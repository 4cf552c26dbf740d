package e2e

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// figures are what was measured, in order.
type figures struct {
	mu  sync.Mutex
	all []*figure
}

// A figure is one line of the table at the end.
type figure struct {
	release, what string
	values        []time.Duration
	counts        []int
	notes         []string
}

// add notes a duration.
func (f *figures) add(release, what string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := f.line(release, what)
	line.values = append(line.values, d)
}

// note notes what is no duration.
func (f *figures) note(release, what, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := f.line(release, what)
	line.notes = append(line.notes, text)
}

func (f *figures) line(release, what string) *figure {
	i := slices.IndexFunc(f.all, func(l *figure) bool { return l.release == release && l.what == what })
	if i < 0 {
		i = len(f.all)
		f.all = append(f.all, &figure{release: release, what: what})
	}
	return f.all[i]
}

// count notes a number that adds up.
func (f *figures) count(release, what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := f.line(release, what)
	line.counts = append(line.counts, n)
}

// of returns the median and the worst of what was measured so far.
func (f *figures) of(release, what string) (median, worst time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.line(release, what).summary()
}

func (l *figure) summary() (median, worst time.Duration) {
	v := slices.Sorted(slices.Values(l.values))
	if len(v) == 0 {
		return 0, 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[len(v)-1]
}

func (f *figures) print(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "\nsystemd\twhat\tn\tmedian\tworst")
	for _, l := range f.all {
		if len(l.counts) > 0 {
			sum := 0
			for _, n := range l.counts {
				sum += n
			}
			fmt.Fprintf(tab, "%s\t%s\t%d\t%d in all\t%d\n", l.release, l.what, len(l.counts), sum, slices.Max(l.counts))
			continue
		}
		if len(l.notes) > 0 {
			fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t\n", l.release, l.what, len(l.notes), strings.Join(slices.Compact(slices.Clone(l.notes)), ", "))
			continue
		}
		median, worst := l.summary()
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\n", l.release, l.what, len(l.values), ms(median), ms(worst))
	}
	tab.Flush()
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string {
	if v := float64(d) / float64(time.Millisecond); v < 10 {
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
