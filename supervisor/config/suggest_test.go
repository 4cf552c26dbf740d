package config

import "testing"

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"timeout", "timeout", 0}, {"timout", "timeout", 1}, {"tiemout", "timeout", 1}, {"fall", "rise", 4}, {"abc", "", 3}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"interval", "timeout", "fall", "rise", "on", "start_grace"}
	for word, want := range map[string]string{
		"timout":      `did you mean "timeout"?`,
		"Timeout":     `did you mean "timeout"?`,
		"start-grace": `did you mean "start_grace"?`,
		"falls":       `did you mean "fall"?`,
		"of":          `did you mean "on"?`,
		"x":           `there are "fall", "interval", "on", "rise", "start_grace" and "timeout"`,
		"colour":      `there are "fall", "interval", "on", "rise", "start_grace" and "timeout"`,
	} {
		if got := suggest(word, known); got != want {
			t.Errorf("suggest(%q) = %s, want %s", word, got, want)
		}
	}
	if got, want := suggest("x", nil), "none is known"; got != want {
		t.Errorf("suggest among none = %s, want %s", got, want)
	}
	if got, want := suggest("xyz", []string{"listen"}), `the only one is "listen"`; got != want {
		t.Errorf("suggest among one = %s, want %s", got, want)
	}
}
