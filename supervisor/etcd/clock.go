package etcd

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// greet asks the member over HTTP for a page that there is not, which it says
// from memory however its disk is doing, and to anybody. The answer has the
// member's wall time in it, to the second.
func (e *endpoint) greet(ctx context.Context) (theirs time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(e.url, "/")+"/deputy", http.NoBody)
	if err != nil {
		return time.Time{}, e.explain(err)
	}
	// The answer is thrown away, so its connection is as well.
	r, err := (&http.Transport{TLSClientConfig: e.tls.Clone(), DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return time.Time{}, e.explain(err)
	}
	r.Body.Close()
	theirs, err = http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: read its time: %w", e.url, err)
	}
	return theirs, nil
}

// farOff is how much two clocks may differ before it is complained of.
const farOff = 10 * time.Second

// skewed tells how far the clock here is from that of an endpoint, when that is
// far; empty else. It is not measured finer than to a second or two.
func skewed(ours, theirs time.Time) string {
	d := ours.Sub(theirs).Round(time.Second)
	switch {
	case d > farOff:
		return fmt.Sprintf("the clock here is %s ahead of that of this member: %s", d, cureClock)
	case d < -farOff:
		return fmt.Sprintf("the clock here is %s behind that of this member: %s", -d, cureClock)
	}
	return ""
}
