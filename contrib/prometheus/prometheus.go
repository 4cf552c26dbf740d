// Package prometheus is what Prometheus needs to watch deputy: rules for alerts,
// and how to scrape. README.md beside it is the guide.
//
// What it guarantees: each rule says what to type next, and is tried by promtool.
// What it does not: that somebody is woken, which is Alertmanager's.
package prometheus
