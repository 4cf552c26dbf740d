package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/control"
)

// A contact is a way to the records: by the daemon of this node, or straight
// to etcd.
type contact struct {
	supervisor.Cluster
	daemon   *control.Client // nil: straight to etcd
	noDaemon error           // why not by the daemon
	close    func()
}

// contact finds a way to the records of a service, or of all when service is
// empty. The daemon comes first: it also answers those who may not see etcd's
// credentials, and notes who asked.
func (a *app) contact(ctx context.Context, service string) (*contact, error) {
	names := []string{service}
	if service == "" {
		names = a.daemons()
	}
	noDaemon := a.noDaemon()
	for _, name := range names {
		_, err := a.local(ctx, name)
		if err == nil {
			return a.daemon(name), nil
		}
		if errors.Is(err, control.ErrDenied) || ctx.Err() != nil {
			return nil, err
		}
		noDaemon = err
	}
	records, err := a.records()
	if err != nil {
		return a.other(ctx, noDaemon, err)
	}
	return &contact{Cluster: records, noDaemon: noDaemon, close: func() { records.Close() }}, nil
}

// other is the way of those who may not read how to reach etcd, to a service
// that this node does not have: by the daemon of another service.
func (a *app) other(ctx context.Context, noDaemon, unreadable error) (*contact, error) {
	if !errors.Is(unreadable, os.ErrPermission) {
		return nil, fmt.Errorf("%w, and etcd is not known: %w", noDaemon, unreadable)
	}
	for _, name := range a.daemons() {
		if _, err := a.local(ctx, name); err == nil {
			return a.daemon(name), nil
		}
	}
	return nil, fmt.Errorf("%w, and etcd is not known: %w", noDaemon, unreadable)
}

// daemon is the way by the daemon of a service.
func (a *app) daemon(service string) *contact {
	c := control.NewClient(a.dir(service))
	return &contact{Cluster: c, daemon: c, close: func() {}}
}

// local asks the daemon of a service here, and soon gives up on a frozen one:
// there are other ways.
func (a *app) local(ctx context.Context, service string) (supervisor.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, localTime, fmt.Errorf("%w at %s: it accepts questions and does not answer", control.ErrNoDaemon, a.dir(service)))
	defer cancel()
	return control.NewClient(a.dir(service)).Status(ctx)
}

// localTime bounds a question that a daemon answers from memory.
const localTime = 2 * time.Second

// fault adds to an error of unreachable records that no daemon answered either.
func (c *contact) fault(err error) error {
	if c.noDaemon != nil && errors.Is(err, supervisor.ErrUnreachable) {
		return fmt.Errorf("%w, and %w", c.noDaemon, err)
	}
	return err
}

// dir is a service's runtime directory.
func (a *app) dir(service string) string { return filepath.Join(a.paths.run, service) }

// daemons are the services that have a control socket here, by name.
func (a *app) daemons() []string {
	entries, _ := os.ReadDir(a.paths.run) // where there is no directory there are no daemons
	var names []string
	for _, e := range entries {
		// Their directories can be passed by those who may not look into them.
		if _, err := os.Lstat(filepath.Join(a.dir(e.Name()), control.SocketName)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// noDaemon tells that no daemon was found at all.
func (a *app) noDaemon() error {
	if _, err := os.ReadDir(a.paths.run); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("look for daemons: %w", err)
	}
	return fmt.Errorf("%w in %s", control.ErrNoDaemon, a.paths.run)
}

// each runs f for all, some at a time, and returns when all have ended.
func each[T any](all []T, f func(i int, one T)) {
	const atOnce = 16
	var wg sync.WaitGroup
	tokens := make(chan struct{}, atOnce)
	for i, one := range all {
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			f(i, one)
		})
	}
	wg.Wait()
}

// reports tells of the named services, or of all that are known here or in
// etcd. What is not known of one service among all is its Problem; of named
// ones, or when nothing at all is known, it is an error as well.
func (a *app) reports(ctx context.Context, names []string) ([]supervisor.Report, error) {
	records, unknown := a.records()
	if records != nil {
		defer records.Close()
	}
	named, defined := len(names) > 0, a.defined()
	var listed []string
	var listing sync.WaitGroup
	if !named {
		names = slices.Compact(slices.Sorted(slices.Values(append(a.daemons(), defined...))))
		if records != nil {
			listing.Go(func() { // which takes about as long as all daemons do
				asked, cancel := context.WithTimeout(ctx, askTime)
				defer cancel()
				listed, unknown = records.Services(asked)
			})
		}
	}
	reports, faults := a.askAll(ctx, names)
	listing.Wait()
	if len(names)+len(listed) == 0 && unknown != nil && !named {
		return nil, fmt.Errorf("%w, and %w", a.noDaemon(), unknown)
	}
	listed = slices.DeleteFunc(listed, func(name string) bool { return slices.Contains(names, name) })
	more, moreFaults := a.askAll(ctx, listed)
	reports, faults = append(reports, more...), append(faults, moreFaults...)
	a.askRecords(ctx, records, unknown, defined, reports, faults)
	each(reports, func(i int, r supervisor.Report) {
		if faults[i] != nil {
			reports[i].Problem = faults[i].Error()
		}
		if r.Source != "daemon" && slices.Contains(defined, r.Service) {
			d, _ := a.load(r.Service) // what is wrong with it, deputy check tells
			reports[i].Description = d.Description
		}
	})
	if !named {
		slices.SortFunc(reports, func(x, y supervisor.Report) int { return strings.Compare(x.Service, y.Service) })
	}
	err := errors.Join(faults...)
	if !named && slices.Contains(faults, nil) && !errors.Is(err, control.ErrDenied) {
		err = nil
	}
	return reports, err
}

// askAll asks the daemons of services.
func (a *app) askAll(ctx context.Context, names []string) ([]supervisor.Report, []error) {
	reports, faults := make([]supervisor.Report, len(names)), make([]error, len(names))
	each(names, func(i int, name string) { reports[i], faults[i] = a.ask(ctx, name) })
	return reports, faults
}

// ask has the daemon of a service here tell of it.
func (a *app) ask(ctx context.Context, name string) (supervisor.Report, error) {
	local, err := a.local(ctx, name)
	if err != nil {
		return supervisor.Report{Service: name, Source: "none"}, err
	}
	return supervisor.NewReport(local.State, &local), nil
}

// askRecords has etcd tell, in one go, of the services whose daemon does not. It
// is not asked where it is known already why it could not be.
func (a *app) askRecords(ctx context.Context, records *line, unknown error, defined []string, reports []supervisor.Report, faults []error) {
	var names []string
	for i, err := range faults {
		if err != nil && !errors.Is(err, control.ErrDenied) {
			names = append(names, reports[i].Service)
		}
	}
	if len(names) == 0 {
		return
	}
	var states map[string]supervisor.State
	if unknown == nil {
		asked, cancel := context.WithTimeout(ctx, askTime)
		states, unknown = records.States(asked, names)
		cancel()
	}
	for i, err := range faults {
		name := reports[i].Service
		s, known := states[name]
		switch {
		case err == nil || errors.Is(err, control.ErrDenied):
		case unknown != nil:
			faults[i] = fmt.Errorf("%w, and %w", err, unknown)
		case known:
			reports[i], faults[i] = supervisor.NewReport(s, nil), nil
		case slices.Contains(defined, name):
			reports[i].Source, faults[i] = "etcd", nil
			reports[i].Problem = "no node has taken part in its election yet"
		default:
			faults[i] = a.noService(name)
		}
	}
}

// noService says where a service would have to be known.
func (a *app) noService(name string) error {
	return fmt.Errorf("%w %q: it is neither in etcd nor in %s", supervisor.ErrNoService, name, a.paths.services)
}
