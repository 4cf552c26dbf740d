package etcd

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// etcd's members tell their time in HTTP's Date; a clock that is hours off is
// told with what goes by it, and leases are not among that.
func TestAClockThatIsFarOff(t *testing.T) {
	var off time.Duration
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer s.Close()
	for _, c := range []struct {
		off  time.Duration
		want string
	}{
		{0, ""},
		{5 * time.Second, ""},
		{-3 * time.Hour, "the clock here is 3h0m"},
		{3 * time.Hour, "behind that of this member: " + cureClock},
	} {
		off = c.off
		theirs, err := (&endpoint{url: s.URL}).greet(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := skewed(time.Now(), theirs)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v off: %q, want %q", c.off, got, c.want)
		}
	}
}
