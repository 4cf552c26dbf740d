package config

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
)

// Settings are those of one plugin in a file of their own: what stands under
// config in a service's definition.
type Settings struct {
	Table map[string]any

	root *value
}

// LoadSettings reads a file of settings. The error is [Mistakes].
func LoadSettings(file string) (Settings, error) {
	return newSettings(readDocument(file))
}

// ReadSettings is LoadSettings for what is not a file; it is told under that
// name.
func ReadSettings(name string, r io.Reader) (Settings, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return Settings{}, Mistakes{{File: name, Text: "cannot be read: " + err.Error(), cause: err}}
	case len(b) > maxFile:
		return Settings{}, Mistakes{{File: name, Text: fmt.Sprintf("cannot be read: larger than %d KiB", maxFile>>10)}}
	}
	return newSettings(parseDocument(name, string(b)))
}

func newSettings(doc *value, wrong Mistakes) (Settings, error) {
	if err := wrong.err(); err != nil {
		return Settings{}, err
	}
	table, _ := doc.plain().(map[string]any)
	return Settings{Table: table, root: doc}, nil
}

// Blame returns what a plugin says of the settings as [Mistakes], with their
// lines. An error about none of them is returned as it is.
func (s Settings) Blame(err error) error {
	var wrong Mistakes
	if s.root == nil {
		return err
	}
	switch e := err.(type) { //nolint:errorlint // each layer is looked at by itself
	case *sdk.KeyError:
		wrong.add(s.where(e.Key), e.Key, "%v", e.Err)
		return wrong.err()
	case interface{ Unwrap() error }: // whatever was said around it
		if blamed := s.Blame(e.Unwrap()); errors.As(blamed, &wrong) {
			return blamed
		}
	case interface{ Unwrap() []error }:
		var rest []error
		for _, one := range e.Unwrap() {
			var some Mistakes
			if blamed := s.Blame(one); errors.As(blamed, &some) {
				wrong = append(wrong, some...)
			} else {
				rest = append(rest, one)
			}
		}
		if wrong != nil {
			return errors.Join(append([]error{wrong.err()}, rest...)...)
		}
	}
	return err
}

// where is the place of a dotted key such as checks[2].port, or of the nearest
// table around it that is there.
func (s Settings) where(key string) place {
	v := s.root
	for part := range strings.SplitSeq(strings.NewReplacer("[", ".", "]", "").Replace(key), ".") {
		var below *value
		switch is := v.is.(type) {
		case map[string]*value:
			below = is[part]
		case []*value:
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(is) {
				below = is[i]
			}
		}
		if below == nil {
			return v.at
		}
		v = below
	}
	return v.at
}
