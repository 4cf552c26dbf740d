package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/deputy-ha/deputy/supervisor"
	"github.com/deputy-ha/deputy/supervisor/etcd"
)

// inspect asks each of etcd's endpoints how it is doing. The error names those
// that cannot be used; what could be better is left to the reader.
func (a *app) inspect(ctx context.Context) (*etcd.Inspection, error) {
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
	return &in, errors.Join(wrong...)
}

// inspectionText shows an inspection on a screen.
func inspectionText(in etcd.Inspection, s screen) string {
	var b strings.Builder
	t := table{head: []string{"ETCD", "VERSION", "ANSWERS IN", "DATA", "VERDICT"}}
	for _, e := range in.Endpoints {
		verdict := cell{strings.Join(append(e.Alarms, e.Complaints...), "; "), moving}
		switch {
		case e.Problem != "":
			verdict = cell{e.Problem, bad}
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
