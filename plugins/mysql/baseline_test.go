package main

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// maxRatio is how much longer writes may pause than with a script, in the
// median.
const maxRatio = 1.5

// script is given the sockets of the server that leaves and of the one that
// follows.
const script = `
mariadb -N -u root -S "$1" -e 'SET GLOBAL read_only = 1'
position=$(mariadb -N -u root -S "$1" -e 'SELECT @@GLOBAL.gtid_binlog_pos')
test "$(mariadb -N -u root -S "$2" -e "SELECT MASTER_GTID_WAIT('$position', 10)")" = 0
mariadb -N -u root -S "$2" -e 'STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0'
`

// A hand-over by the plugin pauses writes hardly longer than the shortest
// script does that a person would write: read_only, wait for the position there,
// writable there. Both are tried in turn on the same servers, under load.
func TestPauseAgainstAScript(t *testing.T) {
	const rounds = 8
	a, b, p, s := pair(t, kinds(t)[0])
	var byScript, byPlugin []time.Duration
	for i := range 2 * rounds {
		w := a.write(2)
		var to time.Time
		if i%2 == 0 {
			if out, err := exec.CommandContext(t.Context(), "sh", "-euc", script, "sh", a.socket(), b.socket()).CombinedOutput(); err != nil {
				t.Fatalf("the script: %v\n%s", err, out)
			}
			to = time.Now()
			byScript = append(byScript, to.Sub(w.last()))
		} else {
			a.act(p, a.transition(sdk.Demote, b))
			b.act(s, b.transition(sdk.Promote, nil))
			to = time.Now()
			byPlugin = append(byPlugin, to.Sub(w.last()))
		}
		b.do("INSERT INTO app.t (note) VALUES ('first')")
		w.end()
		a.act(p, a.transition(sdk.Follow, b))
		a.caughtUp(b)
		a, b, p, s = b, a, s, p
	}
	median := func(all []time.Duration) time.Duration {
		slices.Sort(all)
		return all[len(all)/2]
	}
	scripted, plugin := median(byScript), median(byPlugin)
	ratio := float64(plugin) / float64(scripted)
	t.Logf("script %s (%s to %s), plugin %s (%s to %s): %.2f times, %d rounds each", scripted, byScript[0], byScript[rounds-1], plugin, byPlugin[0], byPlugin[rounds-1], ratio, rounds)
	if ratio > maxRatio && plugin > scripted+20*time.Millisecond {
		t.Errorf("writes pause %s, %.2f times as long as with a script (%s); %.1f times is allowed", plugin, ratio, scripted, maxRatio)
	}
}
