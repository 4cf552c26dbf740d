package main

import (
	"testing"
	"time"

	"github.com/deputy-ha/deputy/plugins/kernelguard/netlab"
	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract of all plugins, judged by a client.
func TestConformance(t *testing.T) {
	t.Parallel()
	l := netlab.New(t)
	home := l.Home()
	l.Plug(home, "home0", node4+"/24", node6+"/64")
	client := l.Host("192.0.2.1/24", "2001:db8::1/64")
	home.Echo(":3306")
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"ports": []string{"tcp/3306"}},
		Expires:  true,
		Promoted: func() (bool, error) {
			c, err := connect(client, node4+":3306", 5*time.Second)
			if err != nil {
				return false, nil
			}
			return true, c.Close()
		},
	})
}
