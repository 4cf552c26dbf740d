package kernelguard

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/deputy-ha/deputy/sdk"
)

// Sentinels of a guard.
var (
	// ErrExpired is a guard that has closed by itself; it wraps sdk.ErrExpired.
	ErrExpired = fmt.Errorf("the guard has closed by itself: %w", sdk.ErrExpired)
	// ErrGone is a guard whose tables somebody else has removed, as
	// "nft flush ruleset" does: nothing is guarded any more.
	ErrGone = errors.New("somebody has removed the guard's nftables tables (nft flush ruleset? a firewall that reloads?)")
)

// unanswered reports whether the kernel may have done what was asked: it does
// not do half of it, but its answer came too late or was lost.
func unanswered(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ENOBUFS)
}

// explain adds the cure to errors that have a known one.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: nftables needs CAP_NET_ADMIN: give the service user = \"root\", or its unit AmbientCapabilities=CAP_NET_ADMIN", err)
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EAFNOSUPPORT):
		return fmt.Errorf("%w: this kernel lacks a part of nf_tables that guards need: tables inet and arp, the expressions fib and reject", err)
	}
	return err
}
