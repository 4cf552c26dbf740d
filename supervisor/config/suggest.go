package config

import (
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
)

// suggest says which of the known words was probably meant, else which there are.
func suggest(word string, known []string) string {
	if best := nearest(word, known); best != "" {
		return `did you mean "` + best + `"?`
	}
	quoted := make([]string, len(known))
	for i, k := range slices.Sorted(slices.Values(known)) {
		quoted[i] = `"` + k + `"`
	}
	switch len(quoted) {
	case 0:
		return "none is known"
	case 1:
		return "the only one is " + quoted[0]
	default:
		return "there are " + supervisor.Enumerate(quoted)
	}
}

// nearest returns the known word that needs the fewest changes to become, if
// they are few for its length.
func nearest(word string, known []string) string {
	best, least := "", 1+max(1, len(word)/3)
	plain := strings.NewReplacer("-", "_")
	for _, k := range slices.Sorted(slices.Values(known)) {
		d := distance(plain.Replace(strings.ToLower(word)), plain.Replace(strings.ToLower(k)))
		if d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
