// Plugin-go is a whole plugin: it keeps a file with a greeting on the primary.
package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/deputy-ha/deputy/sdk"
)

type config struct {
	File     string `toml:"file" doc:"the file that is there on the primary" required:"true"`
	Greeting string `toml:"greeting" doc:"what it says" default:"hello"`
}

type greeter struct{ config }

func newGreeter(_ context.Context, c config, _ sdk.Host) (*greeter, error) { return &greeter{c}, nil }

func (g *greeter) Promote(context.Context, *sdk.Transition) error {
	if said, err := os.ReadFile(g.File); err == nil && string(said) == g.Greeting {
		return sdk.ErrAlready
	}
	return os.WriteFile(g.File, []byte(g.Greeting), 0o644)
}

func (g *greeter) Demote(context.Context, *sdk.Transition) error {
	if err := os.Remove(g.File); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sdk.ErrAlready
}

func main() { sdk.Main(sdk.New("hello", newGreeter)) }
