package etcd

import (
	"context"
	"fmt"

	"github.com/deputy-ha/deputy/supervisor"
)

// GiveBack gives up the tenure of a process that is dead, by compare, so that
// nobody has to wait for it to run out. Only who has proven that nothing on this
// node acts under it any more may call it. It needs no Run, and returns nil as
// well when the tenure is somebody else's or over.
func (c *Client) GiveBack(ctx context.Context, t supervisor.Tenure) error {
	if err := c.election(t.Service).vacate(ctx, t.Pulse, t.Term, nil); err != nil {
		return fmt.Errorf("give back %s: %w", t.Service, err)
	}
	return nil
}
