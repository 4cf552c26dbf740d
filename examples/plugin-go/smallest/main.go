// Smallest is a whole plugin: a file says whether this node is primary.
package main

import (
	"context"
	"os"

	"github.com/deputy-ha/deputy/sdk"
)

type sign struct {
	File string `toml:"file" doc:"says primary on the primary, and is empty elsewhere" required:"true"`
}

func newSign(_ context.Context, s sign, _ sdk.Host) (sign, error) { return s, nil }

func (s sign) Promote(context.Context, *sdk.Transition) error {
	if said, err := os.ReadFile(s.File); err == nil && len(said) > 0 {
		return sdk.ErrAlready
	}
	return os.WriteFile(s.File, []byte("primary\n"), 0o644)
}

func (s sign) Demote(context.Context, *sdk.Transition) error { return os.WriteFile(s.File, nil, 0o644) }

func main() { sdk.Main(sdk.New("sign", newSign)) }
