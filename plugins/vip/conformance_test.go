package main

import (
	"errors"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract of all plugins, judged by a peer that asks the addresses.
func TestConformance(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	home := l.Home()
	l.Plug(home, "home0", "192.0.2.11/24", "2001:db8::11/64")
	peer := l.Host(peer4+"/24", peer6+"/64")
	echoes(home)
	x4, x6 := peer.Ask(at4, 3*time.Millisecond), peer.Ask(at6, 3*time.Millisecond)
	defer x4.End()
	defer x6.End()
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"addresses": []string{vip4, vip6}, "interface": "home0"},
		Expires:  true,
		Promoted: func() (bool, error) {
			since, began := sdk.Now(), time.Now()
			for ; ; time.Sleep(2 * time.Millisecond) {
				asked4, asked6 := x4.Asked(), x6.Asked()
				a, b := netlab.First(asked4, since).Answered != 0, netlab.First(asked6, since).Answered != 0
				// A machine that is busy has not asked often by then.
				enough := time.Since(began) > 40*time.Millisecond && min(sent(asked4, since), sent(asked6, since)) > 10
				switch {
				case a && b:
					return true, nil
				case !enough && time.Since(began) < 5*time.Second:
				case a != b:
					return false, errors.New("one of the addresses answers, and one does not")
				default:
					return false, nil
				}
			}
		},
	})
	for _, a := range []string{vip4, vip6} {
		if out := home.Run("ip", "addr", "show", "to", a); out != "" {
			t.Errorf("left: %s", out)
		}
	}
}

// sent is how many questions were asked since an instant.
func sent(asked []netlab.Question, since sdk.Instant) (n int) {
	for _, q := range asked {
		if q.Sent >= since {
			n++
		}
	}
	return n
}
