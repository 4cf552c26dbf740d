package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/boottime"
	"github.com/deputy-ha/deputy/supervisor/config"
	"github.com/deputy-ha/deputy/supervisor/etcd"
)

// settings reads this node's file. The error is errConfig, or that of a file
// which this user may not read.
func (a *app) settings() (config.Node, error) {
	n, err := config.LoadNode(a.paths.config)
	if err == nil {
		return n, nil
	}
	if f, unreadable := os.Open(a.paths.config); errors.Is(unreadable, os.ErrPermission) {
		return n, fmt.Errorf("read this node's settings: %w", unreadable)
	} else if unreadable == nil {
		f.Close()
	}
	return n, mark(err, errConfig)
}

// nodeName is this node's name. A daemon that runs here knows it where the
// settings cannot be read.
func (a *app) nodeName() (string, error) {
	n, err := a.settings()
	return n.Name, err
}

// services reads the definitions. The error is errConfig.
func (a *app) services() (*config.Services, error) {
	s, err := config.LoadServices(a.paths.services, nil)
	return s, mark(err, errConfig)
}

// defined are the names of all definitions, the broken ones included, as far
// as they can be read.
func (a *app) defined() []string {
	files, _ := filepath.Glob(filepath.Join(a.paths.services, "*.toml")) // the pattern is well formed
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".toml"); !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// definition returns a service as it is defined here, if it is and can be read.
func (a *app) definition(service string) (supervisor.Service, bool) {
	if !slices.Contains(a.defined(), service) {
		return supervisor.Service{}, false
	}
	d, err := a.load(service)
	return d, err == nil
}

// load reads a definition that is there.
func (a *app) load(service string) (supervisor.Service, error) {
	return config.LoadService(filepath.Join(a.paths.services, service+".toml"), nil)
}

// A line is a connection to the records for one command.
type line struct {
	*etcd.Client
	clock *boottime.Clock
}

// Close ends it.
func (l *line) Close() error { return errors.Join(l.Client.Close(), l.clock.Close()) }

// records opens etcd, for an operator's questions and orders.
func (a *app) records() (*line, error) {
	n, err := a.settings()
	if err != nil {
		return nil, err
	}
	cfg, err := records(n)
	if err != nil {
		return nil, err
	}
	clock, err := boottime.New()
	if err != nil {
		return nil, err
	}
	cfg.Node.Name, cfg.Clock = n.Name, clock
	c, err := etcd.Open(cfg)
	if err != nil {
		clock.Close()
		return nil, mark(err, errConfig)
	}
	return &line{c, clock}, nil
}

// records tells how a node reaches etcd.
func records(n config.Node) (etcd.Config, error) {
	cfg := etcd.Config{
		Endpoints: endpoints(n.Etcd), Prefix: n.Etcd.Prefix,
		CAFile: n.Etcd.CAFile, CertFile: n.Etcd.CertFile, KeyFile: n.Etcd.KeyFile,
		Username: n.Etcd.Username, Compact: n.Etcd.Compact,
	}
	if n.Etcd.Password.IsZero() {
		return cfg, nil
	}
	password, err := n.Reveal(n.Etcd.Password)
	if err != nil {
		return cfg, mark(fmt.Errorf("read etcd's password: %w", err), errConfig)
	}
	cfg.Password = password
	return cfg, nil
}

// endpoints are etcd's, as URLs.
func endpoints(e config.Etcd) []string {
	urls := slices.Clone(e.Endpoints)
	for i, u := range urls {
		if !strings.Contains(u, "://") {
			urls[i] = "http://" + u
		}
	}
	return urls
}

// here is this machine as its members present it.
func (a *app) here(n config.Node) (supervisor.Node, error) {
	boot, err := boottime.BootID()
	if err != nil {
		return supervisor.Node{}, err
	}
	machine, err := boottime.MachineID()
	if err != nil {
		return supervisor.Node{}, mark(err, errConfig)
	}
	here := supervisor.Node{Name: n.Name, Address: n.Address, Boot: boot, Machine: machine, Version: versionOf().Version}
	if here.Address == "" {
		here.Address = sourceAddress(endpoints(n.Etcd))
	}
	return here, nil
}

// sourceAddress is the address from which this machine would talk to the first
// endpoint that it has a route to; empty when there is none. Nothing is sent.
func sourceAddress(urls []string) string {
	for _, u := range urls {
		parsed, err := url.Parse(u)
		if err != nil {
			continue
		}
		c, err := net.Dial("udp", parsed.Host)
		if err != nil {
			continue
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).IP.String()
	}
	return ""
}
