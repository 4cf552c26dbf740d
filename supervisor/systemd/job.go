package systemd

import (
	"context"
	"fmt"
	"time"
)

// jobTime bounds the question why this process ends: while it waits for the
// answer nothing is handed over.
const jobTime = 300 * time.Millisecond

// Ending tells what PID 1 is doing to a unit that is told to end: "restart" when
// it will start it again, "stop" when not; anything else, and with an error, it
// has not said.
func (b *Bus) Ending(ctx context.Context, unit string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, jobTime, fmt.Errorf("no answer within %s", jobTime))
	defer cancel()
	u, err := b.Unit(ctx, unit)
	return u.Job, err
}
