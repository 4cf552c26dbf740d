package systemd

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/supervisor"
)

// An Event is a message that operators look for, count and alert on. Its ID
// never changes; the catalog has what it means and what to do.
type Event struct {
	Name  string
	ID    string   // MESSAGE_ID
	Texts []string // the messages of the log that are this event
	Grave bool     // somebody has to see to it
}

// roleChanged is the text of the message that a member logs about its role.
const roleChanged = "role changed"

var (
	becamePrimary  = Event{Name: "became primary", ID: "50ced535b884493e8069624e563ce265"}
	becameStandby  = Event{Name: "became standby", ID: "451404f237654898a3fcdfdaeb6318e5"}
	cannotDemote   = Event{Name: "cannot be demoted", ID: "a5e211b91cf54d748b4bf3c62c4992b5", Grave: true}
	roleAdopted    = Event{Name: "role taken over from the process before", ID: "eaa66bd794904d8e8aaac27a340605ef"}
	leaseLost      = Event{Name: "lease lost", ID: "fbb9ca4b2f9d467992cbd90e9c284925"}
	demotedTooLate = Event{Name: "not demoted in time", ID: "6418af2db82043bba042c369d41d0164", Grave: true, Texts: []string{"not proven demoted in time"}}
)

// Events are all events.
func Events() []Event {
	return []Event{
		becamePrimary, becameStandby, cannotDemote, roleAdopted, leaseLost, demotedTooLate,
		{Name: "act failed", ID: "8cf5cb2b2a574dbf9b09abbe30976d5b", Texts: []string{"act failed"}},
		{Name: "plugin ended", ID: "15d09a6f727b4fc28e710b7692e5953b", Texts: []string{
			"plugin has ended and starts again", "plugin was killed and starts again",
		}},
		{Name: "etcd out of reach", ID: "5c11fef4196d4ba0920ba3b60a22d9d3", Texts: []string{"etcd cannot be reached"}},
		{Name: "etcd within reach", ID: "1dbecaa9ff7b476b9a13c670cbcb3056", Texts: []string{"etcd can be reached again"}},
		{Name: "told to stop", ID: "838bd4ab9f604261968a60f30034e24c", Texts: []string{
			"told to stop: roles are handed over", "told to restart: roles are kept",
		}},
		{Name: "node forced down", ID: "1a8f7bb99d094cc4b00ff59f9dbdb546", Grave: true, Texts: []string{
			"this node is forced down", "this node is not forced down: turn it off, the role may be held twice",
		}},
	}
}

// eventOf returns the event that a message is; the zero Event when it is none.
func eventOf(message string, attrs []slog.Attr) Event {
	if message == roleChanged {
		return changeOf(attrs)
	}
	for _, e := range Events() {
		for _, t := range e.Texts {
			if t == message {
				return e
			}
		}
	}
	return Event{}
}

// changeOf returns the event that a change of role is.
func changeOf(attrs []slog.Attr) Event {
	switch sdk.Role(find(attrs, "role")) {
	case sdk.RolePrimary:
		if sdk.Role(find(attrs, "from")) == sdk.RoleUnknown {
			return roleAdopted
		}
		return becamePrimary
	case sdk.RoleStandby:
		if sdk.Role(find(attrs, "from")) == sdk.RoleCandidate {
			return Event{} // it led nothing
		}
		return becameStandby
	case sdk.RoleBlocked, sdk.RoleFailed:
		return cannotDemote
	case sdk.RoleDemoting:
		for _, a := range attrs {
			if err, ok := a.Value.Any().(error); ok && a.Key == "cause" && errors.Is(err, supervisor.ErrLost) {
				return leaseLost
			}
		}
	}
	return Event{}
}

// find returns an attribute's text; empty where there is none.
func find(attrs []slog.Attr, key string) string {
	for _, a := range attrs {
		if a.Key == key {
			return text(a.Value)
		}
	}
	return ""
}

// messageOf is a message that says by itself of what it tells.
func messageOf(message string, attrs []slog.Attr) string {
	var of string
	for _, key := range []string{"service", "plugin"} {
		if v := find(attrs, key); v != "" {
			of += v + ": "
		}
	}
	said := map[string]bool{"service": true, "plugin": true, "node": true, "cause": true}
	if message == roleChanged {
		said["role"], said["from"], said["term"] = true, true, true
		message = change(sdk.Role(find(attrs, "role")), find(attrs, "from"), find(attrs, "term"))
	}
	var rest []string
	for _, a := range attrs {
		if !said[a.Key] {
			rest = append(rest, a.Key+"="+text(a.Value))
		}
	}
	if rest != nil {
		message += " (" + strings.Join(rest, ", ") + ")"
	}
	if cause := find(attrs, "cause"); cause != "" && cause != "<nil>" {
		message += ": " + cause
	}
	return of + message
}

// change tells of a change of role.
func change(role sdk.Role, from, term string) string {
	link := map[sdk.Role]string{
		sdk.RolePrimary: "of", sdk.RolePromoting: "for", sdk.RoleDemoting: "of", sdk.RoleBlocked: "in", sdk.RoleFailed: "in",
	}[role]
	if term == "" || link == "" {
		return fmt.Sprintf("%s (%s -> %s)", role, from, role)
	}
	return fmt.Sprintf("%s %s term %s (%s -> %s)", role, link, term, from, role)
}
