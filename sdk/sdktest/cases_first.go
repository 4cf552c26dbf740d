package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/deputy-ha/deputy/sdk"
	"github.com/deputy-ha/deputy/sdk/wire"
)

func firstCases() []Case {
	return []Case{
		{
			"start", "It starts, prints its handshake before anything else, has its socket in the folder that it is given, and answers within 10 s.",
			"Print nothing before the handshake, listen in $PLUGIN_UNIX_SOCKET_DIR, and leave slow work to Configure: package sdk does the first two once main runs. A script is no plugin by itself: the plugin exec runs it.",
			caseStart,
		},
		{
			"end", "It ends soon when it is told to.",
			"When told to drain and to shut down, end what runs and exit, and wait for nothing without a bound.",
			caseEnd,
		},
		{
			"settings", "It takes settings that are right, and names each unknown or missing one by its key.",
			"Declare every setting in the schema, refuse what is not in it, and tell all mistakes at once, each with its key.",
			caseSettings,
		},
		{
			"no-settings", "Asked for an act or a check before it has settings, it says that it cannot, and goes on.",
			"Answer before Configure as a failure of that call: neither claim to have done it nor end.",
			caseNoSettings,
		},
	}
}

func caseStart(x *exam) {
	began := time.Now()
	p := x.start()
	took := time.Since(began)
	if err := x.ping(p, askBound); err != nil {
		x.fail("it did not answer a ping: %v", err)
	}
	p.kill()
	if took > startBound {
		x.fail("its first answer came after %s", short(took))
	}
	x.note("first answer after %s", short(took))
}

func caseEnd(x *exam) {
	p := x.start()
	x.needsProcess(p, "that ends with the call")
	began := time.Now()
	p.close()
	x.note("ended %s after it was told to", short(time.Since(began)))
}

func caseLeavesNothing(x *exam) {
	p := x.ready()
	x.needsProcess(p, "what is left of one that went well is what it promoted")
	if x.can(sdk.CanPromote) {
		x.demoted(p, x.promoted(p))
	}
	p.close()
	x.nothingLeft(p)
	if !x.can(sdk.CanPromote) {
		return
	}
	for _, after := range x.middles(sdk.Promote) {
		p := x.ready()
		t := x.nextTerm()
		promote := p.begun(x.transition(sdk.Promote, t))
		x.pause(after)
		p.close()
		promote()
		q := x.open()
		x.demoted(q, t)
		x.staysDemoted(q, t)
		q.close()
		x.nothingLeft(p) // it has promoted nothing that could be adopted any more
		x.nothingLeft(q)
	}
}

// nothingLeft sees that nothing of a plugin is there any more that is demoted
// and has ended.
func (x *exam) nothingLeft(p *guest) {
	left := p.Left()
	for end := time.Now().Add(slack); time.Now().Before(end) && len(left.Processes) > 0; left = p.Left() {
		x.pause(10 * time.Millisecond) // they may be about to end
	}
	if len(left.Processes) > 0 {
		x.fail("processes that it started are left: %s", processNames(left.Processes))
	}
	if len(left.Sockets) > 0 {
		x.fail("sockets are left: %v", left.Sockets)
	}
}

// caseNoSettings asks for no promote: nobody could say what.
func caseNoSettings(x *exam) {
	p := x.start()
	x.needsProcess(p, "its host has its settings before anything is asked")
	if x.can(sdk.CanDemote) {
		if r := p.demote(x.suite.term); r.Outcome.OK() {
			x.fail("before it had settings, a demote was answered with %s: nobody has looked", tell(r))
		}
	}
	if x.can(sdk.CanCheck) {
		ctx, cancel := context.WithTimeout(x.ctx, askBound)
		defer cancel()
		over := x.did.begin("check, role %s", sdk.RoleStandby)
		h, err := p.Check(ctx, sdk.RoleStandby, 0)
		if over("fit %v: %s, error %v", h.Fit, h.Detail, err); err == nil && h.Fit {
			x.fail("before it had settings, a check was answered with fit: nobody has looked")
		}
	}
	if err := x.ping(p, askBound); err != nil {
		x.fail("asked before it had settings, it did not answer a ping any more: %v", err)
	}
	p.close()
}

func (x *exam) ping(p *guest, within time.Duration) error {
	ctx, cancel := context.WithTimeout(x.ctx, within)
	defer cancel()
	return p.Ping(ctx)
}

func caseDescribe(x *exam) {
	p := x.start()
	d := x.describe(p)
	switch {
	case d.Name == "":
		x.fail("it has no name")
	case len(d.Capabilities) == 0:
		x.fail("it names no capability, so nothing would ever be asked of it")
	case x.can(sdk.CanPromote) && !x.can(sdk.CanDemote):
		x.fail("it can promote but not demote: what is promoted must be able to leave the role")
	}
	known := []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanRenew, sdk.CanCheck, sdk.CanWatch, sdk.CanRank, sdk.CanFollow, sdk.CanFence}
	for _, c := range d.Capabilities {
		if !slices.Contains(known, c) {
			x.fail("it names a capability that there is not: %q", c)
		}
	}
	x.alike(d, x.describe(p), "asked twice")
	p.close()
	p = x.start()
	x.alike(d, x.describe(p), "asked in another process")
	p.close()
	if !x.can(sdk.CanPromote) {
		return
	}
	// Neither what is promoted nor what is demoted is touched.
	p = x.ready()
	x.describe(x.start())
	x.world(false)
	t := x.promoted(p)
	x.world(true)
	x.describe(x.start())
	x.world(true)
	x.demoted(p, t)
}

func (x *exam) describe(p *guest) wire.Description {
	ctx, cancel := context.WithTimeout(x.ctx, askBound)
	defer cancel()
	d, err := p.Describe(ctx)
	if err != nil {
		x.fail("it did not answer what it is: %v", err)
	}
	x.did.add("describe: %s %v", d.Name, d.Capabilities)
	return d
}

func (x *exam) alike(a, b wire.Description, when string) {
	if !reflect.DeepEqual(a, b) {
		x.fail("%s, it describes itself otherwise: %+v, then %+v", when, a, b)
	}
}

func caseSettings(x *exam) {
	p := x.start()
	if err := x.validate(p, x.config.Settings); err != nil {
		x.fail("it does not take the settings that it is to be examined with: %v", err)
	}
	const unknown = "no_such_setting"
	with := maps.Clone(x.config.Settings)
	if with == nil {
		with = map[string]any{}
	}
	with[unknown] = "x"
	switch err := x.validate(p, with); {
	case err == nil:
		x.fail("it takes a setting that there is not: %s", unknown)
	case !slices.Contains(keys(err), unknown):
		x.fail("it refuses an unknown setting, but does not name it by its key %s: %v", unknown, err)
	}
	required, err := x.required()
	if err != nil {
		x.fail("the schema of its settings cannot be read: %v", err)
	}
	for _, key := range required {
		without := maps.Clone(x.config.Settings)
		if _, given := without[key]; !given {
			x.fail("its schema requires %s, yet it takes settings without it", key)
		}
		delete(without, key)
		switch err := x.validate(p, without); {
		case err == nil:
			x.fail("it takes settings without %s, which its schema requires", key)
		case !slices.Contains(keys(err), key):
			x.fail("it refuses settings without %s, but does not name the key: %v", key, err)
		}
	}
	if len(required) == 0 {
		x.note("its schema requires no setting")
	} else { // all mistakes, not the first
		delete(with, required[0])
		if err := x.validate(p, with); !slices.Contains(keys(err), unknown) || !slices.Contains(keys(err), required[0]) {
			x.fail("of settings with %s and without %s it does not name both: %v", unknown, required[0], err)
		}
	}
	// What was judged is not in force, and the same settings again are nothing new.
	for range 2 {
		ctx, cancel := context.WithTimeout(x.ctx, askBound)
		defer cancel()
		if err := x.configure(ctx, p, 0); err != nil {
			x.fail("it does not take settings that it found right: %v", err)
		}
	}
	p.close()
}

func (x *exam) validate(p *guest, settings map[string]any) error {
	ctx, cancel := context.WithTimeout(x.ctx, askBound)
	defer cancel()
	s := x.setup(0)
	s.Config = settings
	err := p.Validate(ctx, s)
	if errors.Is(err, context.DeadlineExceeded) {
		x.fail("it did not judge settings within %s", askBound)
	}
	judged := "right"
	if err != nil {
		judged = err.Error()
	}
	x.did.add("judge settings %s: %s", settingNames(settings), judged)
	return err
}

// required are the settings that the schema says cannot be left out.
func (x *exam) required() ([]string, error) {
	if len(bytes.TrimSpace(x.about.Schema)) == 0 {
		return nil, nil
	}
	var schema struct {
		Required []string `json:"required"`
	}
	err := json.Unmarshal(x.about.Schema, &schema)
	return schema.Required, err
}
