package sdk

import (
	"context"
	"io"
)

// ByHand is what Main does when a person has started it.
func ByHand(ctx context.Context, p Plugin, in io.Reader, out, err io.Writer, args ...string) (exit int) {
	return byHand{p, in, out, err}.run(ctx, args)
}
