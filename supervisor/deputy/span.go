package main

import (
	"fmt"
	"time"
)

// forever is how a flag asks for an order without an end.
const forever = "forever"

// A span is a flag: for how long an order holds. Zero is forever.
type span time.Duration

// Set reads it.
func (s *span) Set(text string) error {
	if text == forever {
		*s = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("it is a time span above zero, such as 90s, 30m or 12h, or %s", forever)
	}
	*s = span(d)
	return nil
}

// String is what Set reads.
func (s *span) String() string {
	if *s == 0 {
		return forever
	}
	return (*time.Duration)(s).String()
}

// Type is what help calls it.
func (s *span) Type() string { return "duration" }

// from returns since when an order that is given now holds, and until when; the
// latter is zero for one without an end.
func (s *span) from(now time.Time) (since, until time.Time) {
	since = now.UTC().Truncate(time.Second)
	if *s != 0 {
		until = since.Add(time.Duration(*s))
	}
	return since, until
}
