package config

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// Redacted returns what a TOML file says without what may be a secret, and
// those values, so that they can be looked for elsewhere. Comments and the order
// of keys are lost: a comment may hold anything. A file that is no TOML is an
// error, and nothing of it is returned.
//
// What may be a secret: the text of a key that is named like one, what follows
// such a name in a text or in a list of arguments, the user in a URL, all of a
// webhook but its host. Where a secret is, { credential = … } and { file = … },
// is kept.
func Redacted(file string) (text string, secrets []string, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	var all map[string]any
	if _, err := toml.Decode(string(b), &all); err != nil {
		return "", nil, fmt.Errorf("%s is no TOML: `deputy check` tells where", file) // the error itself may quote it
	}
	r := &redaction{}
	var out bytes.Buffer
	if err := toml.NewEncoder(&out).Encode(r.table(all)); err != nil {
		return "", nil, fmt.Errorf("write %s without secrets: %w", file, err)
	}
	return out.String(), r.secrets, nil
}

// redacted stands where a secret was.
const redacted = "(left out)"

var (
	secretKey = regexp.MustCompile(`(?i)pass(w|word|wd|phrase)?$|pass(word|wd|phrase)|secret|token|api_?key|private_?key|authorization|cookie|^key$|^auth$`)
	notSecret = regexp.MustCompile(`(?i)_file$|^credential$|^file$`)
	option    = regexp.MustCompile(`(?i)^--?[a-z-]*(pass(word|wd|phrase)?|secret|token|api-?key)$`)
	assigned  = regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key)["']?\s*[=:]\s*)(\S+)`)
	userinfo  = regexp.MustCompile(`(://)([^/@\s]+)(@)`)
	bearer    = regexp.MustCompile(`(?i)((?:bearer|basic)\s+)(\S+)`)
	address   = regexp.MustCompile(`^(https?://[^/]+/)(.+)$`)
)

// A redaction collects what it leaves out.
type redaction struct{ secrets []string }

func (r *redaction) hide(value string) string {
	if value != "" {
		r.secrets = append(r.secrets, value)
	}
	return redacted
}

func (r *redaction) table(t map[string]any) map[string]any {
	clean := make(map[string]any, len(t))
	for key, v := range t {
		switch {
		case notSecret.MatchString(key):
			clean[key] = v
		case secretKey.MatchString(key), key == "headers":
			clean[key] = r.all(v)
		case key == "webhook":
			clean[key] = r.webhook(v)
		default:
			clean[key] = r.value(v)
		}
	}
	return clean
}

// value leaves out what looks like a secret.
func (r *redaction) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.text(v)
	case map[string]any:
		return r.table(v)
	case []map[string]any:
		clean := make([]map[string]any, len(v))
		for i, t := range v {
			clean[i] = r.table(t)
		}
		return clean
	case []any:
		clean := make([]any, len(v))
		for i, e := range v {
			if before, ok := prior(v, i); ok && option.MatchString(before) {
				clean[i] = r.all(e)
				continue
			}
			clean[i] = r.value(e)
		}
		return clean
	}
	return v
}

// prior is the text before an element of a list.
func prior(list []any, i int) (string, bool) {
	if i == 0 {
		return "", false
	}
	s, ok := list[i-1].(string)
	return s, ok
}

// all leaves out every text of a value, but for where a secret is.
func (r *redaction) all(v any) any {
	switch v := v.(type) {
	case map[string]any:
		clean := make(map[string]any, len(v))
		for key, e := range v {
			if clean[key] = e; !notSecret.MatchString(key) {
				clean[key] = r.all(e)
			}
		}
		return clean
	case []any:
		clean := make([]any, len(v))
		for i, e := range v {
			clean[i] = r.all(e)
		}
		return clean
	case string:
		return r.hide(v)
	}
	return r.hide(fmt.Sprint(v))
}

func (r *redaction) text(s string) string {
	for _, p := range []*regexp.Regexp{assigned, userinfo, bearer} {
		s = p.ReplaceAllStringFunc(s, func(found string) string {
			m := p.FindStringSubmatch(found)
			r.hide(strings.Trim(m[2], `"'`))
			return m[1] + redacted + strings.Join(m[3:], "")
		})
	}
	return s
}

// webhook leaves the host: what is behind it is often a key.
func (r *redaction) webhook(v any) any {
	s, ok := v.(string)
	if !ok {
		return r.value(v)
	}
	if m := address.FindStringSubmatch(r.text(s)); m != nil {
		r.hide(m[2])
		return m[1] + redacted
	}
	return r.text(s)
}
