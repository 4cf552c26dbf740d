package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/proto"
)

// A keeper keeps how often it was promoted.
type keeper struct{ host sdk.Host }

func (k keeper) Promote(_ context.Context, t *sdk.Transition) error {
	if k.host.StateDir != t.StateDir {
		return fmt.Errorf("%s is not %s", k.host.StateDir, t.StateDir)
	}
	file := filepath.Join(k.host.StateDir, "times")
	before, _ := os.ReadFile(file)
	if err := os.WriteFile(file, append(before, 'x'), 0o600); err != nil {
		return err
	}
	return fmt.Errorf("%d times in %s: %w", len(before)+1, k.host.StateDir, sdk.ErrAlready)
}

func (k keeper) Demote(context.Context, *sdk.Transition) error { return nil }

type nothing struct{}

// By hand a state directory is there as well, and a temporary one goes again.
func TestStateByHand(t *testing.T) {
	p := sdk.New("keeper", func(_ context.Context, _ nothing, h sdk.Host) (keeper, error) { return keeper{h}, nil })
	call := func(args ...string) string {
		var out, err bytes.Buffer
		if exit := sdk.ByHand(t.Context(), p, strings.NewReader(""), &out, &err, append([]string{"call", "promote"}, args...)...); exit != 10 {
			t.Errorf("%v: exit code %d: %s%s", args, exit, out.String(), err.String())
		}
		return out.String()
	}
	for range 2 {
		said := call()
		var times int
		var dir string
		if _, err := fmt.Sscanf(strings.ReplaceAll(said, ": ", " "), "already %d times in %s", &times, &dir); err != nil || times != 1 {
			t.Errorf("got %q (%v), want the first time", said, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "state")
	for times := range 2 {
		if said, want := call("--state-dir", dir), fmt.Sprintf("%d times in %s", times+1, dir); !strings.Contains(said, want) {
			t.Errorf("got %q, want %q", said, want)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

// A host's clock is that of whoever serves, and the real one elsewhere.
func TestHostTellsTheTime(t *testing.T) {
	if before, now, after := sdk.Now(), (sdk.Host{}).Now(), sdk.Now(); now < before || now > after {
		t.Errorf("a host of no server: %d, not between %d and %d", now, before, after)
	}
	var living context.Context
	var host sdk.Host
	p := sdk.New("keeper", func(ctx context.Context, _ nothing, h sdk.Host) (keeper, error) {
		living, host = ctx, h
		return keeper{h}, nil
	})
	ctx, end := context.WithCancelCause(t.Context())
	s := sdk.NewServer(ctx, p, slog.New(slog.DiscardHandler), func() sdk.Instant { return 42 })
	if r, err := s.Configure(t.Context(), &proto.ConfigureRequest{Config: "{}"}); err != nil || len(r.Mistakes) > 0 {
		t.Fatal(r, err)
	}
	if host.Now() != 42 {
		t.Errorf("a served host: %d, want 42", host.Now())
	}
	if living.Err() != nil {
		t.Error("its context has ended before the process")
	}
	over := errors.New("the process is over")
	end(over)
	if !errors.Is(context.Cause(living), over) {
		t.Errorf("its context ended by %v, want by the end of the process", context.Cause(living))
	}
}
