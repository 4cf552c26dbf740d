package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// Settings are those of one plugin in a file of their own: what stands under
// config in a service's definition.
type Settings struct {
	Table map[string]any

	root  *value
	under string // the key that it stands under, with its dot
	whose string // the part that it belongs to
}

// PartSettings are the settings of the part of that name as they stand in a
// service's file now.
func PartSettings(s supervisor.Service, part string) Settings {
	i := slices.IndexFunc(s.Parts, func(p supervisor.Part) bool { return p.Name == part })
	doc, wrong := readDocument(s.File)
	if i < 0 || len(wrong) > 0 {
		return Settings{}
	}
	found := Settings{Table: s.Parts[i].Config, under: "plugin.config.", whose: "plugin " + part + ": "}
	root, _ := doc.is.(map[string]*value)
	if root["plugin"] == nil {
		return found
	}
	if parts, _ := root["plugin"].is.([]*value); i < len(parts) {
		found.root = parts[i]
		if keys, _ := parts[i].is.(map[string]*value); keys["config"] != nil {
			found.root = keys["config"]
		}
	}
	return found
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
		wrong.add(s.where(e.Key), s.under+e.Key, "%s%v", s.whose, e.Err)
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
