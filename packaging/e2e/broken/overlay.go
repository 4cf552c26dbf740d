// Package broken takes deputy's layers of safety away, one by one, for the
// proof that the checker sees it when one is missing.
//
// What it guarantees: nothing in the tree is touched; a build with `go build
// -overlay` has exactly the changes that were asked for, or there is none. Where
// the product does not have the text that a change replaces, once and no more,
// the error names the file and that text: then the mutation is to be written
// anew.
//
// What it does not guarantee: that a layer can be taken away in one way only.
// Each mutation is the shortest change that a hasty author might make.
package broken

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An Edit is a change of one file.
type Edit struct {
	File string // below the root of the tree
	Old  string // is there once
	New  string // takes its place
}

// A Mutation is a change of the product that takes something away.
type Mutation struct {
	Name  string
	Edits []Edit
	// Why tells what the product promises no more, or, of a mutation that only
	// lets another layer stand alone, what does not cover that one any more.
	Why string
	// Fault is what shows that it is missing; empty for what covers something else.
	Fault string
}

// Plugins reports whether the mutation changes plugins too, and not the
// supervisor alone.
func (m Mutation) Plugins() bool {
	return slices.ContainsFunc(m.Edits, func(e Edit) bool { return strings.HasPrefix(e.File, "plugins/") })
}

// Named returns mutations of the list, and panics where there is none of a name.
func Named(names ...string) []Mutation {
	all := Mutations()
	var found []Mutation
	for _, name := range names {
		i := slices.IndexFunc(all, func(m Mutation) bool { return m.Name == name })
		if i < 0 {
			panic("no mutation is called " + name)
		}
		found = append(found, all[i])
	}
	return found
}

// Overlay writes what mutations make of the tree at root to files in dir, and
// returns the one that `go build -overlay` wants.
func Overlay(root, dir string, all ...Mutation) (string, error) {
	texts := make(map[string]string)
	for _, m := range all {
		for _, e := range m.Edits {
			if _, ok := texts[e.File]; !ok {
				data, err := os.ReadFile(filepath.Join(root, e.File))
				if err != nil {
					return "", fmt.Errorf("mutate %s: %w", m.Name, err)
				}
				texts[e.File] = string(data)
			}
			if n := strings.Count(texts[e.File], e.Old); n != 1 {
				return "", fmt.Errorf("mutate %s: %s has %d times what is to be replaced, want once; the product has changed, so write the mutation anew: %q", m.Name, e.File, n, e.Old)
			}
			texts[e.File] = strings.Replace(texts[e.File], e.Old, e.New, 1)
		}
	}
	var list struct{ Replace map[string]string }
	list.Replace = make(map[string]string)
	for file, text := range texts {
		real, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		fake := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(fake, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		list.Replace[real] = fake
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, data, 0o600); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return at, nil
}
