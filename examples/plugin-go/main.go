// Plugin-go is a whole plugin: on the primary there is a file with a greeting.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/deputy-ha/deputy/sdk"
)

type config struct {
	File     string `toml:"file" doc:"the file that is there on the primary, an absolute path" required:"true"`
	Greeting string `toml:"greeting" doc:"what it says" default:"hello"`
}

type greeter struct{ config }

func newGreeter(_ context.Context, c config, _ sdk.Host) (*greeter, error) { return &greeter{c}, nil }

func (g *greeter) Promote(context.Context, *sdk.Transition) error {
	if g.look() == nil {
		return sdk.ErrAlready
	}
	return errors.Join(os.WriteFile(g.File, []byte(g.Greeting), 0o644), g.look())
}

func (g *greeter) Demote(context.Context, *sdk.Transition) error {
	if err := os.Remove(g.File); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sdk.ErrAlready
}

func (g *greeter) look() error {
	said, err := os.ReadFile(g.File)
	if err == nil && string(said) != g.Greeting {
		err = fmt.Errorf("%s says %q, not %q", g.File, said, g.Greeting)
	}
	return err
}

func main() { sdk.Main(sdk.New("hello", newGreeter)) }
