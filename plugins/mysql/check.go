package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/deputy-ha/deputy/sdk"
)

// Check asks the server itself: what answers is what works.
func (m *mysql) Check(ctx context.Context, role sdk.Role) (sdk.Health, error) {
	primary := role == sdk.RolePrimary
	l, err := m.server.connect(ctx)
	switch {
	case saturated(err):
		return sdk.Health{Fit: primary, Detail: fmt.Sprintf("it lives and is full: %s; CONNECTION ADMIN gives deputy a place of its own", err)}, nil
	case err != nil:
		return sdk.Health{Detail: err.Error(), Certain: isDown(err)}, nil
	}
	defer l.close()
	f, err := l.look(ctx, l)
	if err != nil {
		return sdk.Health{Detail: err.Error()}, nil
	}
	if err := m.granted(ctx, l); err != nil {
		return sdk.Health{Detail: err.Error()}, nil
	}
	channels, err := l.channels(ctx)
	if err != nil {
		return sdk.Health{Detail: err.Error()}, nil
	}
	h := sdk.Health{Position: f.received(channels).String()}
	if why := m.divergence(); why != "" && !primary {
		return sdk.Health{Position: aside + h.Position, Detail: why}, nil
	}
	if err := m.unsuited(ctx, l, f, channels); err != nil && (!primary || f.cluster != "") {
		h.Detail = err.Error() // of a primary that works it is told when it moves
		return h, nil
	}
	if primary {
		h.Detail = primaryFault(f, channels)
	} else {
		h.Detail = m.standbyFault(f, channels)
	}
	if h.Fit = h.Detail == ""; h.Fit {
		h.Detail = describe(f, channels)
	}
	return h, nil
}

// primaryFault is what is wrong with a primary.
func primaryFault(f facts, channels []channel) string {
	switch {
	case f.readOnly || f.some:
		return "it is read-only although this node is primary: somebody has set that, or the server has started anew"
	case f.offline:
		return "it is in offline mode although this node is primary"
	case len(channels) > 0:
		return fmt.Sprintf("it follows %s although this node is primary", channels[0].source())
	}
	return ""
}

// standbyFault is what keeps a standby from becoming primary.
func (m *mysql) standbyFault(f facts, channels []channel) string {
	if !f.readOnly {
		return "it is writable although this node is not primary: somebody has set that; a restart of deputy makes it read-only"
	}
	if len(channels) == 0 {
		return ""
	}
	c := channels[0]
	switch {
	case c.applies != "Yes" && c.applyFault != "":
		return "the applier has stopped: " + c.applyFault
	case c.receives == "No" && c.receiveFault != "":
		return "it cannot follow " + c.source() + ": " + c.receiveFault
	}
	if behind, err := strconv.Atoi(c.behind); err == nil && time.Duration(behind)*time.Second > m.MaxLag {
		return fmt.Sprintf("it is %d s behind, and max_lag is %s", behind, m.MaxLag)
	}
	return ""
}

// describe tells of a server that is as it should be.
func describe(f facts, channels []channel) string {
	switch {
	case !f.readOnly:
		return "writable at " + brief(f.position)
	case len(channels) == 0:
		return "read-only at " + brief(f.position) + ", follows nobody"
	}
	c := channels[0]
	text := "read-only at " + brief(f.position) + ", follows " + c.source()
	if !c.healthy() {
		text += fmt.Sprintf(" (receives: %s, applies: %s)", c.receives, c.applies)
	}
	if c.behind != "" && c.behind != "0" {
		text += ", " + c.behind + " s behind"
	}
	return text
}
