package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd"
	"github.com/deputy-ha/deputy/supervisor/rundir"
)

// inspect asks each of etcd's endpoints how it is doing, and looks whether the
// records are those of these services. The error names the endpoints that cannot
// be used, and what keeps a service from having a primary here; what could be
// better is left to the reader.
func (a *app) inspect(ctx context.Context, services []supervisor.Service) (*etcd.Inspection, error) {
	records, err := a.records()
	if err != nil {
		return nil, err
	}
	defer records.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	in := records.Inspect(ctx)
	var wrong []error
	for _, e := range in.Endpoints {
		if e.Problem != "" {
			wrong = append(wrong, fmt.Errorf("%w by way of %s", supervisor.ErrUnreachable, e.Problem))
		}
	}
	if len(wrong) < len(in.Endpoints) {
		wrong = append(wrong, a.recognize(ctx, records, services)...)
		in.Complaints = append(in.Complaints, a.neighbours(ctx, records, services)...)
	}
	return &in, errors.Join(wrong...)
}

// recognize tells of which services the records are not those that this node
// knows. Who may not read what it knows is not told.
func (a *app) recognize(ctx context.Context, records *line, services []supervisor.Service) (wrong []error) {
	known := rundir.Witness(a.paths.state)
	for _, s := range services {
		seen, err := known.LoadSeen(s.Name)
		if errors.Is(err, os.ErrPermission) {
			continue
		}
		why := ""
		if err == nil {
			why, err = records.Recognize(ctx, seen, known.File(s.Name))
		}
		if err == nil && why != "" {
			err = mark(fmt.Errorf("%s: %s", s.Name, why), errConfig)
		}
		wrong = append(wrong, err)
	}
	return wrong
}

// neighbours tells which services are in etcd under another prefix as well.
func (a *app) neighbours(ctx context.Context, records *line, services []supervisor.Service) []string {
	hashes := make(map[string]string)
	for _, s := range services {
		hashes[s.Name] = s.Hash
	}
	return records.Neighbours(ctx, hashes)
}

// inspectionText shows an inspection on a screen.
func inspectionText(in etcd.Inspection, s screen) string {
	var b strings.Builder
	t := table{head: []string{"ETCD", "VERSION", "ANSWERS IN", "DATA", "VERDICT"}}
	for _, e := range in.Endpoints {
		verdict := cell{strings.Join(append(e.Alarms, e.Complaints...), "; "), moving}
		switch {
		case e.Problem != "":
			verdict = cell{strings.Join(append([]string{e.Problem}, e.Complaints...), "; "), bad}
		case verdict.text == "":
			verdict = cell{"fine", good}
		}
		answers, data := "-", "-"
		if e.Latency > 0 {
			answers = short(e.Latency)
		}
		if e.DBSize > 0 {
			data = fmt.Sprintf("%.1f MB", float64(e.DBSize)/1e6)
		}
		t.add(cell{tidy(e.URL), plain}, cell{tidy(e.Version), plain}, cell{answers, plain}, cell{data, plain}, verdict)
	}
	t.write(&b, s, "  ")
	for _, c := range in.Complaints {
		b.WriteString("  " + strings.Join(wrap(tidy(c), s.width-2), "\n  ") + "\n")
	}
	return b.String()
}
