package control

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A level that was asked for ends by itself, also when nobody asks any more.
func TestLevelGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Level
		if err := l.UnmarshalText([]byte("warn")); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			set  *LogLevel
			wait time.Duration
			want LogLevel
		}{
			{nil, 0, LogLevel{slog.LevelWarn, 0, slog.LevelWarn}},
			{&LogLevel{Level: slog.LevelDebug, For: time.Minute}, 0, LogLevel{slog.LevelDebug, time.Minute, slog.LevelWarn}},
			{nil, 59 * time.Second, LogLevel{slog.LevelDebug, time.Second, slog.LevelWarn}},
			{nil, time.Second, LogLevel{slog.LevelWarn, 0, slog.LevelWarn}},
			{&LogLevel{Level: slog.LevelError}, time.Hour, LogLevel{slog.LevelError, 0, slog.LevelWarn}},
		} {
			if step.set != nil {
				l.Set(*step.set)
			}
			time.Sleep(step.wait)
			if got := l.Get(); got != step.want || l.Level() != step.want.Level {
				t.Errorf("got %+v, want %+v", got, step.want)
			}
		}
	})
}
