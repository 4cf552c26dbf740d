package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

type flagFile struct {
	File string `toml:"file" doc:"the file that is there on the primary" required:"true"`
}

func newFlagFile(_ context.Context, c flagFile, _ sdk.Host) (*flagFile, error) { return &c, nil }

func (f *flagFile) Promote(context.Context, *sdk.Transition) error {
	if _, err := os.Stat(f.File); err == nil {
		return sdk.ErrAlready
	}
	return os.WriteFile(f.File, nil, 0o644)
}

func (f *flagFile) Demote(context.Context, *sdk.Transition) error {
	if err := os.Remove(f.File); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sdk.ErrAlready
}

// A whole plugin is a struct of settings, a type with methods, and one line of
// main.
func Example() {
	main := func() { sdk.Main(sdk.New("flag", newFlagFile)) }
	_ = main
}

func ExampleNew() {
	p := sdk.New("flag", newFlagFile,
		sdk.Version("1.0.3"),
		sdk.Doc("Keeps a file on the primary."),
		sdk.ForcedBound(50*time.Millisecond))
	sdk.Main(p)
}

// The tags of the settings are their documentation, too.
func ExampleSettingsTable() {
	type config struct {
		Address netip.Prefix  `toml:"address" doc:"what clients connect to" required:"true"`
		On      string        `toml:"on" doc:"what a duplicate does" enum:"fail|wait" default:"fail"`
		Every   time.Duration `toml:"every" doc:"how often it is announced" default:"60s" min:"1s"`
	}
	p := sdk.New("address", func(context.Context, config, sdk.Host) (*flagFile, error) { return nil, nil })
	fmt.Print(sdk.SettingsTable(p))
	// Output:
	// | setting | value | default | what it is for |
	// |---|---|---|---|
	// | `address` | IP address with its prefix length | required | what clients connect to |
	// | `on` | "fail" or "wait" | `"fail"` | what a duplicate does |
	// | `every` | duration | `"60s"` | how often it is announced (at least 1s) |
}

type service struct{ host sdk.Host }

// An act does its work, bounds it, and looks. What it returns is what it saw.
func (s *service) Promote(ctx context.Context, t *sdk.Transition) error {
	if up, err := s.look(ctx); err != nil {
		return sdk.Unchanged(err) // nothing was done yet
	} else if up {
		return fmt.Errorf("it runs: %w", sdk.ErrAlready)
	}
	sdk.Progress(ctx, 0, "starting for term %d", t.Term)
	if err := sdk.Run(sdk.Command(ctx, "/usr/bin/my-service", "start"), s.host.Log); err != nil {
		return err // who knows what it has done: unknown
	}
	switch up, err := s.look(ctx); {
	case err != nil:
		return err
	case !up:
		return errors.New("it was started and does not run")
	}
	sdk.Note(ctx, "it answers")
	return nil
}

func (s *service) look(ctx context.Context) (bool, error) {
	return sdk.Command(ctx, "/usr/bin/my-service", "status").Run() == nil, ctx.Err()
}

func ExamplePromoter() {
	var _ sdk.Promoter = &service{}
}

func ExampleCommand() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := sdk.Command(ctx, "/bin/sh", "-c", "echo up").Output()
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// up
	// <nil>
}

func ExampleRefuse() {
	carrier := errors.New("eth0 has no carrier")
	err := fmt.Errorf("add 192.0.2.10: %w", sdk.Refuse(carrier))
	fmt.Println(err)
	// Output: add 192.0.2.10: eth0 has no carrier
}
