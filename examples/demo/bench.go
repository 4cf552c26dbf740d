package main

import (
	"context"
	"flag"
	"io"
)

type benchFlags struct{}

func (b *benchFlags) register(f *flag.FlagSet) {}

func (b *benchFlags) run(ctx context.Context, o options, out io.Writer) error { return nil }
