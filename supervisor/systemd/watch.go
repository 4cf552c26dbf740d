package systemd

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// Watch calls changed, which must not block, when one of some units has changed,
// and when some change may not have been heard, until ctx ends.
func (b *Bus) Watch(ctx context.Context, changed func(), units ...string) {
	for ctx.Err() == nil {
		if l, err := b.open(ctx); err == nil {
			stop := l.watch(&changed, units)
			if l.subscribe(ctx, units) == nil {
				changed() // since the connection before
				select {
				case <-l.over:
				case <-ctx.Done():
				}
			}
			stop()
		}
		select {
		case <-time.After(watchTime): // who is asked meanwhile tells that PID 1 is not there
		case <-ctx.Done():
		}
	}
}

// watchTime is between one try to be told of changes and the next.
const watchTime = time.Second

// watch has a func called when one of some units has changed; stop ends that.
func (l *line) watch(changed *func(), units []string) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range units {
		l.watched[pathOf(name)] = append(l.watched[pathOf(name)], changed)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, name := range units {
			at := pathOf(name)
			l.watched[at] = slices.DeleteFunc(l.watched[at], func(f *func()) bool { return f == changed })
		}
	}
}

// subscribe has PID 1 tell of changes, and the bus pass on those of some units.
func (l *line) subscribe(ctx context.Context, units []string) error {
	err := l.call(ctx, busPath, rootInterface+".Subscribe").Err
	if answer := (dbus.Error{}); errors.As(err, &answer) && answer.Name == busName+".AlreadySubscribed" {
		err = nil
	}
	for _, name := range units {
		// On PID 1's own socket there is no bus to ask, and nothing is kept back.
		err = errors.Join(err, l.conn.AddMatchSignalContext(ctx,
			dbus.WithMatchObjectPath(pathOf(name)), dbus.WithMatchInterface(propertiesInterface), dbus.WithMatchMember("PropertiesChanged")))
	}
	return err
}
