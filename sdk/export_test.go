package sdk

import (
	"context"
	"io"
	"log/slog"

	wire "github.com/deputy-ha/deputy/sdk/proto"
)

// NewServer returns what Main serves.
func NewServer(p Plugin, log *slog.Logger) wire.PluginServiceServer {
	return &server{plugin: p, log: log}
}

// ByHand is what Main does when a person has started it.
func ByHand(ctx context.Context, p Plugin, in io.Reader, out, err io.Writer, args ...string) (exit int) {
	return byHand{p, in, out, err}.run(ctx, args)
}
