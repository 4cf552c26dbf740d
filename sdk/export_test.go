package sdk

import (
	"log/slog"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// NewServer returns what Main serves.
func NewServer(p Plugin, log *slog.Logger) wire.PluginServiceServer {
	return &server{plugin: p, log: log}
}
