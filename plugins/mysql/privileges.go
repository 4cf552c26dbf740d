package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A privilege is something that the account needs, with what for.
type privilege struct{ name, purpose string }

// notGranted is when the account lacks something.
type notGranted struct {
	user    string
	missing []privilege
}

func (e *notGranted) Error() string {
	var all, cures []string
	for _, p := range e.missing {
		all = append(all, p.name+" "+p.purpose)
		name, on, found := strings.Cut(p.name, " ON ")
		if !found {
			on = "*.*"
		}
		cures = append(cures, fmt.Sprintf("GRANT %s ON %s TO %s;", name, on, e.user))
	}
	return fmt.Sprintf("the account %s lacks %s: %s", e.user, strings.Join(all, ", "), strings.Join(cures, " "))
}

// grantLine is a line of SHOW GRANTS.
var grantLine = regexp.MustCompile(`^GRANT (.+) ON (\S+) TO `)

// granted finds out what of what the account needs it lacks. What it has by
// roles cannot be told; then nothing counts as lacking.
func (m *mysql) granted(ctx context.Context, l *link) error {
	lines, err := l.texts(ctx, "SHOW GRANTS")
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, line := range lines {
		found := grantLine.FindStringSubmatch(line)
		if found == nil {
			return nil // a role
		}
		on := strings.ReplaceAll(found[2], "`", "")
		for name := range strings.SplitSeq(found[1], ",") {
			name = strings.TrimSpace(name)
			if on != "*.*" {
				name += " ON " + on
			}
			has[name] = true
		}
	}
	needs := l.privileges()
	if _, ok := l.flavour.(mariadb); ok && m.Promotion.EventScheduler == "manage" {
		needs = append(needs, privilege{"SUPER", "to turn the event scheduler on and off"})
	}
	e := &notGranted{}
	for _, p := range needs {
		static, _, _ := strings.Cut(p.name, " ON ")
		if !has[p.name] && !has[static] && !has["ALL PRIVILEGES"] {
			e.missing = append(e.missing, p)
		}
	}
	if len(e.missing) == 0 {
		return nil
	}
	if e.user, err = l.one(ctx, "CURRENT_USER()"); err != nil {
		return err
	}
	return e
}

// texts returns the first column of a statement's rows.
func (l *link) texts(ctx context.Context, query string) ([]string, error) {
	rows, err := l.rows(ctx, query)
	var all []string
	for _, r := range rows {
		for _, v := range r {
			all = append(all, v)
		}
	}
	return all, err
}

// named are the privileges that the server's own message asks for.
var named = regexp.MustCompile(`at least one of\) the (.+) privilege`)

// explain adds the cure to a refusal of the server.
func (s *server) explain(err error) error {
	at := s.at.user
	switch number(err) {
	case errAccessDenied, errNoLogin:
		return fmt.Errorf("%w: the server knows user %s by another password, or not at all: see \"What it needs\" of deputy-plugin-mysql", err, at)
	case errNotOwner:
		return fmt.Errorf("%w: GRANT CONNECTION ADMIN ON *.* TO %s; (MySQL: CONNECTION_ADMIN)", err, at)
	case errSelectDenied:
		return fmt.Errorf("%w: GRANT SELECT ON performance_schema.* TO %s;", err, at)
	case errSpecificAccess:
		found := named.FindStringSubmatch(err.Error())
		if found == nil {
			break
		}
		// SUPER is always one of those that would do, and too much.
		all := slices.DeleteFunc(strings.Split(found[1], ", "), func(p string) bool { return strings.TrimSpace(p) == "SUPER" })
		if len(all) == 0 {
			all = []string{"SUPER"}
		}
		return fmt.Errorf("%w: GRANT %s ON *.* TO %s;", err, strings.TrimSpace(all[len(all)-1]), at)
	}
	return err
}

// unproven is what an act comes to that has done all it could, when the account
// lacks what the proof needs: without PROCESS a server shows no other's
// connections, and says nothing of that.
func unproven(err error) error {
	var lacks *notGranted
	if errors.As(err, &lacks) {
		return fmt.Errorf("it cannot be proven: %w", err)
	}
	return err
}
