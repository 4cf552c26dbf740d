// Package manual writes for people what a plugin says of itself: as text for a
// terminal, as a manual page, and its settings as a JSON Schema for editors.
//
// What it guarantees: the text is no wider than asked for, but for lines of code
// and single words; the page is for man(7) as groff and mandoc have it, and both
// read it without a warning; the schema takes what a definition may hold, secrets
// by reference too. What a plugin says badly is shown as far as it goes. What it
// does not: that all of Markdown is known. Chapters, paragraphs, lists, tables,
// code and what is set off within a line are.
package manual

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Plugin is what a plugin says of itself.
type Plugin struct {
	Name         string
	Version      string
	Path         string        // of its program; empty where that is of no interest
	Doc          string        // Markdown; its first line is a summary
	Capabilities []string      // by the names that the contract has for them
	ForcedBound  time.Duration // of a forced demotion; zero when it does not say
	Silent       bool          // sends no heartbeats
	Schema       json.RawMessage
}

// Summary is the first line of what the plugin says of itself.
func (p Plugin) Summary() string {
	line, _, _ := strings.Cut(strings.TrimSpace(p.Doc), "\n")
	if line = strings.TrimSpace(strings.TrimLeft(line, "#")); line == "" {
		return "A plugin of deputy."
	}
	return line
}

// cleaned is the plugin without what would steer a terminal.
func (p Plugin) cleaned() Plugin {
	p.Name, p.Version, p.Doc = Tidy(p.Name), Tidy(p.Version), Tidy(p.Doc)
	p.Capabilities = slices.Clone(p.Capabilities)
	for i, c := range p.Capabilities {
		p.Capabilities[i] = Tidy(c)
	}
	return p
}

// Tidy makes text of others fit to print: in one line for each of its own, and
// without what a terminal would obey.
func Tidy(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < ' ', r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, text)
}

// promises are what the plugin has said that it keeps, a sentence each.
func (p Plugin) promises() []string {
	var all []string
	switch {
	case p.ForcedBound > 0:
		all = append(all, fmt.Sprintf("A forced demotion that is given %s is done in that time.", p.ForcedBound))
	case p.can("demote"):
		all = append(all, "How long a forced demotion takes it does not say.")
	}
	if p.Silent {
		all = append(all, "It sends no heartbeats: while it works, a slow one cannot be told from a frozen one.")
	}
	return all
}

func (p Plugin) can(capability string) bool {
	return slices.Contains(p.Capabilities, capability)
}

// calls says of each capability when a plugin is called for it.
func calls(capability string) string {
	switch capability {
	case "promote":
		return "This node has won a term: makes the part act as primary."
	case "demote":
		return "This node leaves the role, or starts: makes the part not act as primary."
	case "renew":
		return "The lease was renewed: extends what ends by itself."
	case "check":
		return "At every interval: is this node fit for the role?"
	case "watch":
		return "All the time: tells when a check may have another answer."
	case "rank":
		return "The role is vacant: compares this node's data with that of the others."
	case "follow":
		return "Another node is primary: points the part to it."
	case "fence":
		return "The primary was lost: makes sure that its node is down."
	}
	return "Known to later versions of deputy."
}
