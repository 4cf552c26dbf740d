package control

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// A LogLevel is the least level that a supervisor logs, and what comes after it.
type LogLevel struct {
	Level slog.Level    `json:"level"`
	For   time.Duration `json:"for_ns,omitempty"` // until it is Usual again by itself; zero: until the process ends
	Usual slog.Level    `json:"usual"`            // that the process began with
}

// A Level is the least level that is logged. It is a slog.Leveler that goes back
// to what it was at first by itself, when a time has passed: whoever asked for
// more need not be there any more. Its zero value is info. Flags set it
// before it is shared; then several goroutines may use it.
type Level struct {
	usual slog.Level
	other atomic.Pointer[passing]
}

// A passing level is in force until a time.
type passing struct {
	level slog.Level
	until time.Time // zero: for good
}

// Level returns what is in force now.
func (l *Level) Level() slog.Level { return l.Get().Level }

// Get returns what is in force now, and for how long.
func (l *Level) Get() LogLevel {
	p := l.other.Load()
	if p == nil {
		return LogLevel{Level: l.usual, Usual: l.usual}
	}
	var left time.Duration
	if !p.until.IsZero() {
		if left = time.Until(p.until); left <= 0 {
			return LogLevel{Level: l.usual, Usual: l.usual}
		}
	}
	return LogLevel{Level: p.level, For: left, Usual: l.usual}
}

// Set puts another level in force, for good or for a time. Usual is not changed.
func (l *Level) Set(to LogLevel) {
	p := &passing{level: to.Level}
	if to.For > 0 {
		p.until = time.Now().Add(to.For)
	}
	l.other.Store(p)
}

// MarshalText returns the name of the level in force.
func (l *Level) MarshalText() ([]byte, error) { return l.Level().MarshalText() }

// UnmarshalText sets the usual level, by its name. It is for flags, before the
// level is shared.
func (l *Level) UnmarshalText(b []byte) error { return l.usual.UnmarshalText(b) }
