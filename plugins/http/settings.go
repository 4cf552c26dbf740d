package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/deputy-ha/deputy/plugins/endpoint"
	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	URL             string            `toml:"url" doc:"what is asked for, such as http://127.0.0.1:8080/health" required:"true"`
	Socket          string            `toml:"socket" doc:"a unix socket, an absolute path, by which the server is reached; the host in url then only goes into the request"`
	Method          string            `toml:"method" doc:"how it is asked" default:"GET" enum:"GET|HEAD|OPTIONS"`
	Host            string            `toml:"host" doc:"the Host header; without it the host in url"`
	Headers         map[string]string `toml:"headers" doc:"more headers: texts by name, or { credential = ... }" sensitive:"true"`
	Status          []statuses        `toml:"status" doc:"the status codes that pass, each one code or a range" default:"200-399"`
	Body            *regexp.Regexp    `toml:"body" doc:"a regular expression that has to match somewhere in the first 64 KiB of the body"`
	FollowRedirects bool              `toml:"follow_redirects" doc:"a redirect is followed, ten times at most and never from https to http, and the last answer counts; without it the redirect itself is the answer" default:"false"`
	KeepAlive       bool              `toml:"keep_alive" doc:"the connection is used again by the next check; without it each check proves that the server takes new ones" default:"false"`
	TLS             endpoint.TLS      `toml:"tls" doc:"how https is spoken"`
}

// Statuses are a range of status codes.
type statuses struct{ first, last int }

// UnmarshalText reads a code or a range of codes.
func (s *statuses) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if !isRange {
		last = first
	}
	var errFirst, errLast error
	s.first, errFirst = strconv.Atoi(first)
	s.last, errLast = strconv.Atoi(last)
	if errFirst != nil || errLast != nil || s.first < 100 || s.last > 599 || s.first > s.last {
		return errors.New("must be a status code from 100 to 599, or a range of them, such as 200 or 200-399")
	}
	return nil
}

func (s statuses) String() string {
	if s.first == s.last {
		return strconv.Itoa(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// passes reports whether a status code is among those that pass.
func (s *settings) passes(code int) bool {
	return slices.ContainsFunc(s.Status, func(r statuses) bool { return r.first <= code && code <= r.last })
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	switch u, err := url.Parse(s.URL); {
	case err != nil:
		mistake("url", "%w", errors.Unwrap(err)) // without the text, which may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		mistake("url", "must begin with http:// or https://")
	case u.Host == "":
		mistake("url", "names no host, such as http://127.0.0.1:8080/health has")
	case u.User != nil:
		mistake("url", "has a user in it, which would show in every message: write headers = { Authorization = { credential = … } }")
	}
	if s.Socket != "" {
		if err := endpoint.CheckSocket(s.Socket); err != nil {
			mistake("socket", "%w", err)
		}
	}
	if s.Body != nil && s.Method == http.MethodHead {
		mistake("body", "an answer to HEAD has none: remove it, or write method = \"GET\"")
	}
	if len(s.Status) == 0 {
		mistake("status", "is empty, so nothing would pass")
	}
	if !httpguts.ValidHostHeader(s.Host) {
		mistake("host", "%q cannot be a host", s.Host)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			mistake("headers", "%q cannot be the name of a header", name)
		case strings.EqualFold(name, "Host"):
			mistake("headers."+name, "has a setting of its own: host")
		case !httpguts.ValidHeaderFieldValue(s.Headers[name]):
			mistake("headers."+name, "has a line break or another byte that a header cannot have")
		}
	}
	return errors.Join(wrong...)
}
