package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
)

// The defaults of a service.
const (
	// DefaultTTL is the least that outlasts the loss of etcd's leader at
	// etcd's defaults: 3 s lost a lease in 1 of 50 losses, 4 s in none.
	DefaultTTL      = 4 * time.Second
	DefaultPriority = 100
	DefaultUser     = "deputy"
)

// Longer than these is taken for a mistake: what runs longer than maxAct
// should not run inside a change of role, and a failure that takes longer than
// maxNotice to be noticed was not meant to be noticed.
const (
	maxAct    = 24 * time.Hour
	maxNotice = 10 * time.Minute
)

// MaxParts is how many plugins a service may have: so many, however they are
// called, fit into the one page in which a node notes which of them are
// promoted (supervisor/rundir).
const MaxParts = 32

// defaultPart is the policy of a plugin about which nothing is said.
func defaultPart() supervisor.Part {
	return supervisor.Part{
		Promote: supervisor.ActPolicy{Timeout: 30 * time.Second, Retries: 2},
		Demote:  supervisor.ActPolicy{Timeout: 10 * time.Second, Retries: 2},
		// A management board may take half a minute. One retry: then another node,
		// which may reach the device, has its turn.
		Fence: supervisor.ActPolicy{Timeout: time.Minute, Retries: 1},
		Check: supervisor.CheckPolicy{
			Interval: time.Second, Timeout: 500 * time.Millisecond,
			Fall: 3, Rise: 2, Severity: supervisor.Critical, StartGrace: 5 * time.Second,
		},
	}
}

// Services are the definitions of a directory.
type Services struct {
	Good   []supervisor.Service // by name
	Broken map[string]error     // by name: Mistakes
	dir    string
}

// LoadServices reads every NAME.toml of a directory. What is wrong with one
// service is told in Broken and does not touch the others; the error is that
// of reading the directory. plugins are the names of those installed; nil
// accepts any.
func LoadServices(dir string, plugins []string) (*Services, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	s := &Services{Broken: map[string]error{}, dir: dir}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".toml")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		service, err := LoadService(filepath.Join(dir, e.Name()), plugins)
		if err != nil {
			s.Broken[name] = err
			continue
		}
		s.Good = append(s.Good, service)
	}
	slices.SortFunc(s.Good, func(a, b supervisor.Service) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

// Get returns the named service, its [Mistakes], or an error that is
// [supervisor.ErrNoService].
func (s *Services) Get(name string) (supervisor.Service, error) {
	for _, service := range s.Good {
		if service.Name == name {
			return service, nil
		}
	}
	if err := s.Broken[name]; err != nil {
		return supervisor.Service{}, err
	}
	known := slices.Concat(s.Names(), slices.Collect(maps.Keys(s.Broken)))
	return supervisor.Service{}, fmt.Errorf("%w: %s is not in %s; %s", supervisor.ErrNoService, name, s.dir, suggest(name, known))
}

// Names are those of the good services, in order.
func (s *Services) Names() []string {
	names := make([]string, len(s.Good))
	for i, service := range s.Good {
		names[i] = service.Name
	}
	return names
}

// Err returns the mistakes of all broken services as one error, or nil.
func (s *Services) Err() error {
	var all []error
	for _, name := range slices.Sorted(maps.Keys(s.Broken)) {
		all = append(all, s.Broken[name])
	}
	return errors.Join(all...)
}

// LoadService reads one definition; the file's name without .toml is the
// service's. plugins are the names of those installed; nil accepts any. The
// error is [Mistakes].
func LoadService(file string, plugins []string) (supervisor.Service, error) {
	doc, wrong := readDocument(file)
	return finishService(file, doc, wrong, plugins)
}

func parseService(file, src string, plugins []string) (supervisor.Service, error) {
	doc, wrong := parseDocument(file, src)
	return finishService(file, doc, wrong, plugins)
}

func finishService(file string, doc *value, wrong Mistakes, plugins []string) (supervisor.Service, error) {
	name := strings.TrimSuffix(filepath.Base(file), ".toml")
	if !namePattern.MatchString(name) {
		wrong.add(place{file: file}, "", "%q cannot be a service's name; %s", name, nameRule)
	}
	var s supervisor.Service
	if doc != nil {
		s = readService(top(doc, &wrong), plugins)
	}
	if err := wrong.err(); err != nil {
		return supervisor.Service{}, err
	}
	s.Name, s.File = name, file
	s.Hash = hash(s)
	return s, nil
}

func readService(t *table, plugins []string) supervisor.Service {
	s := supervisor.Service{
		TTL: DefaultTTL, Priority: DefaultPriority, User: DefaultUser,
		OnDemoteFailure: supervisor.Block, OnUnclean: supervisor.UncleanWait, OnBehind: supervisor.BehindRefuse,
	}
	t.text("description", &s.Description)
	t.duration("ttl", &s.TTL, supervisor.MinTTL, supervisor.MaxTTL)
	t.number("priority", &s.Priority, 0, math.MaxInt32)
	t.flag("preempt", &s.Preempt)
	oneOf(t, "on_demote_failure", &s.OnDemoteFailure, supervisor.Block, supervisor.Reboot)
	oneOf(t, "on_unclean", &s.OnUnclean, supervisor.UncleanWait, supervisor.UncleanFence)
	oneOf(t, "on_behind", &s.OnBehind, supervisor.BehindRefuse, supervisor.BehindPromote)
	readUser(t, &s.User)

	parts := t.subs("plugin")
	if !t.has("plugin") || isEmptyArray(t.keys["plugin"]) {
		t.mistake("plugin", `is missing: a service without plugins does nothing; add [[plugin]] with use = "…"`)
	}
	for i, sub := range parts {
		if i == MaxParts {
			t.wrong.add(sub.at, "plugin", "is one too many; a service has at most %d", MaxParts)
		}
		p := readPart(sub, plugins)
		key := "use"
		if sub.has("name") {
			key = "name"
		}
		if p.Name != "" && slices.ContainsFunc(s.Parts, func(q supervisor.Part) bool { return q.Name == p.Name }) {
			sub.mistake(key, `a plugin named %q is there already; give one of them a name of its own: name = %q`, p.Name, unused(p.Name, s.Parts))
		}
		s.Parts = append(s.Parts, p)
	}
	if s.OnUnclean == supervisor.UncleanFence && len(s.Parts) > 0 && !slices.ContainsFunc(s.Parts, func(p supervisor.Part) bool { return may(p, "fence") }) {
		t.mistake("on_unclean", noFence)
	}
	t.close()
	return s
}

// unused is a name like the given one that no part has.
func unused(name string, parts []supervisor.Part) string {
	for i := 2; ; i++ {
		other := fmt.Sprintf("%s-%d", name, i)
		if !slices.ContainsFunc(parts, func(p supervisor.Part) bool { return p.Name == other }) {
			return other
		}
	}
}

func readUser(t *table, into *string) {
	if t.text("user", into) && !userPattern.MatchString(*into) {
		t.mistake("user", "%q cannot be a user; write the name of one, like %q or \"root\"", *into, DefaultUser)
	}
}

func readPart(t *table, plugins []string) supervisor.Part {
	p := defaultPart()
	switch given := t.text("use", &p.Use); {
	case !t.has("use"):
		t.mistake("use", `is missing; say which plugin this is, like use = "exec"`)
	case !given:
	case !namePattern.MatchString(p.Use):
		t.mistake("use", "%q cannot be a plugin; %s", p.Use, nameRule)
	case plugins != nil && p.Use != execPlugin && !slices.Contains(plugins, p.Use):
		t.mistake("use", "no plugin %q is installed; %s", p.Use, suggest(p.Use, append([]string{execPlugin}, plugins...)))
	}
	p.Name = p.Use
	if t.text("name", &p.Name) && !namePattern.MatchString(p.Name) {
		t.mistake("name", "%q cannot be a plugin's name; %s", p.Name, nameRule)
	}
	readAct(t.sub("promote"), &p.Promote)
	readAct(t.sub("demote"), &p.Demote)
	readAct(t.sub("fence"), &p.Fence)
	readCheck(t.sub("check"), &p.Check)
	config := t.sub("config")
	if config.keys != nil {
		p.Config, _ = (&value{is: config.keys}).plain().(map[string]any)
	}
	if p.Use == execPlugin {
		checkExec(t, config)
	}
	t.close()
	return p
}

func readAct(t *table, a *supervisor.ActPolicy) {
	t.duration("timeout", &a.Timeout, time.Millisecond, maxAct)
	t.number("retries", &a.Retries, 0, 1000)
	t.close()
}

func readCheck(t *table, c *supervisor.CheckPolicy) {
	interval := t.duration("interval", &c.Interval, 10*time.Millisecond, time.Hour)
	t.duration("fast_interval", &c.FastInterval, 10*time.Millisecond, time.Hour)
	t.number("jitter", &c.Jitter, 0, 50)
	timeout := t.duration("timeout", &c.Timeout, time.Millisecond, time.Hour)
	t.number("fall", &c.Fall, 1, 1000)
	t.number("rise", &c.Rise, 1, 1000)
	t.duration("start_grace", &c.StartGrace, 0, time.Hour)
	oneOf(t, "on", &c.On, supervisor.OnPrimary, supervisor.OnStandby, supervisor.OnBoth)
	oneOf(t, "severity", &c.Severity, supervisor.Critical, supervisor.Warning, supervisor.Eligibility)
	t.close()

	if c.FastInterval > c.Interval {
		t.mistake("fast_interval", "is %s, longer than the interval of %s; make it shorter, or remove it", short(c.FastInterval), short(c.Interval))
	}
	if c.Severity == supervisor.Eligibility && c.On == supervisor.OnPrimary {
		t.mistake("severity", `is "eligibility", and on is "primary": such a check would never count; remove on, or write severity = "warning"`)
	}

	if c.Interval < c.Timeout {
		switch {
		case timeout && interval:
			t.mistake("timeout", "is %s, longer than the interval of %s, so checks would overlap; make it at most %s", short(c.Timeout), short(c.Interval), short(c.Interval))
		case timeout:
			t.mistake("timeout", "is %s, longer than the interval of %s (the default), so checks would overlap; set interval to %s or more", short(c.Timeout), short(c.Interval), short(c.Timeout))
		case interval && !t.has("timeout"):
			// The default gives way; what is written does not.
			c.Timeout = c.Interval
		}
	}
	if c.Interval > maxNotice/time.Duration(c.Fall) {
		t.mistake(either(t, "fall", "interval"), "%d failures %s apart: an unfit primary would stay for %s before it is noticed; make fall × interval at most %s",
			c.Fall, short(c.Interval), short(time.Duration(c.Fall)*c.Interval), short(maxNotice))
	}
	if c.Interval > maxNotice/time.Duration(c.Rise) {
		t.mistake(either(t, "rise", "interval"), "%d successes %s apart: a node would stay unfit for %s after it is well again; make rise × interval at most %s",
			c.Rise, short(c.Interval), short(time.Duration(c.Rise)*c.Interval), short(maxNotice))
	}
}

// either returns the first of the keys that is there, for a mistake that is
// about both.
func either(t *table, keys ...string) string {
	for _, k := range keys {
		if t.has(k) {
			return k
		}
	}
	return keys[0]
}
