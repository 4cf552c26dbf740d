package main

import (
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
)

// The contract of all plugins, judged by a client that writes.
func TestConformance(t *testing.T) {
	h := newHosts(t, kinds(t)[0], 1)[0]
	db := h.login("app", "app")
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"socket": h.socket(), "user": "deputy", "password": "deputy", "server_config": []string{}},
		Promoted: func() (bool, error) {
			_, err := db.ExecContext(t.Context(), "INSERT INTO app.t (note) VALUES ('conformance')")
			if number(err) == 1290 { // running with the --read-only option
				return false, nil
			}
			return err == nil, err
		},
	})
}
