package main

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/deputy-ha/deputy/plugins/endpoint"
	"github.com/deputy-ha/deputy/sdk"
)

// settings are what one may write.
type settings struct {
	Address string         `toml:"address" doc:"the host and port that are connected to, such as 127.0.0.1:6379 or [::1]:25"`
	Socket  string         `toml:"socket" doc:"a unix socket, an absolute path, that is connected to instead"`
	TLS     *endpoint.TLS  `toml:"tls" doc:"TLS is spoken; {} is enough where the system knows the authority"`
	Send    payload        `toml:"send" doc:"what is sent once connected, with the escapes \\r \\n \\t \\0 \\xHH and \\\\"`
	Expect  *regexp.Regexp `toml:"expect" doc:"a regular expression that has to match in the first 64 KiB of what comes then; without it nothing is read"`
}

// A payload is what is sent.
type payload []byte

// UnmarshalText reads a text with escapes.
func (p *payload) UnmarshalText(text []byte) error {
	escapes := map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, '\\': '\\'}
	var all []byte
	for rest := text; len(rest) > 0; {
		b := rest[0]
		rest = rest[1:]
		if b != '\\' {
			all = append(all, b)
			continue
		}
		switch {
		case len(rest) > 2 && rest[0] == 'x':
			n, err := strconv.ParseUint(string(rest[1:3]), 16, 8)
			if err != nil {
				return fmt.Errorf(`\x%s is not a byte in two hexadecimal digits`, rest[1:3])
			}
			all, rest = append(all, byte(n)), rest[3:]
		case len(rest) > 0 && (escapes[rest[0]] != 0 || rest[0] == '0'):
			all, rest = append(all, escapes[rest[0]]), rest[1:]
		default:
			return fmt.Errorf(`\%s is no escape: there are \r \n \t \0 \xHH and \\`, rest[:min(len(rest), 1)])
		}
	}
	*p = all
	return nil
}

// Validate tells what is wrong with the whole.
func (s *settings) Validate() error {
	var wrong []error
	mistake := func(key, format string, args ...any) {
		wrong = append(wrong, &sdk.KeyError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	switch {
	case s.Address == "" && s.Socket == "":
		mistake("address", "is missing: say where to connect to, by address or by socket")
	case s.Address != "" && s.Socket != "":
		mistake("socket", "is there beside address: write one of them")
	case s.Socket != "":
		if err := endpoint.CheckSocket(s.Socket); err != nil {
			mistake("socket", "%w", err)
		}
	default:
		host, port, err := net.SplitHostPort(s.Address)
		if number, wrongPort := strconv.ParseUint(port, 10, 16); err != nil || host == "" || wrongPort != nil || number == 0 {
			mistake("address", "%q is not a host and a port, such as 127.0.0.1:6379 or [::1]:25", s.Address)
		}
	}
	if s.TLS != nil && s.Socket != "" && s.TLS.Verify && s.TLS.ServerName == "" {
		mistake("tls.server_name", "is missing: a socket has no name for which the certificate could be")
	}
	if len(s.Send) > 0 && s.Expect == nil {
		mistake("send", "needs expect beside it: what is sent proves nothing before it is answered")
	}
	return errors.Join(wrong...)
}
