package main

import (
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/deputy-ha/deputy/sdk/sdktest"
	"github.com/deputy-ha/deputy/sdk/wire"
)

func setup(config map[string]any) wire.Setup {
	return wire.Setup{Service: "s", Node: "db1", Part: "http", Config: config}
}

// The contract of all plugins.
func TestConformance(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(health(&hits))
	defer server.Close()
	sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
		Settings: map[string]any{"url": server.URL + "/ok", "body": "running"},
	})
	if hits.Load() < 1000 {
		t.Errorf("the server was asked %d times", hits.Load())
	}
}
