// Package endpointtest is for the tests of plugins that ask a server whether it
// is well.
//
// What it guarantees: an answer that comes when its time is over fails the test.
package endpointtest

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Check asks once, for as long as within.
func Check(t *testing.T, p interface {
	Check(ctx context.Context, role sdk.Role) (sdk.Health, error)
}, within time.Duration,
) sdk.Health {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	h, err := p.Check(ctx, sdk.RolePrimary)
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("it answers %q when its time is over", h.Detail)
	}
	return h
}

// Says fails unless an answer is fit, or not, and in these words, in which D in
// "after D" is a duration.
func Says(t *testing.T, h sdk.Health, fit bool, want string) {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "after D", `after [0-9.]+(µs|ms|s)`)
	if h.Fit != fit || !regexp.MustCompile("^"+pattern+"$").MatchString(h.Detail) {
		t.Errorf("got %+v\nwant fit %t, %s", h, fit, want)
	}
}
