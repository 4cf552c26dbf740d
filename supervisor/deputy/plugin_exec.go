package main

import (
	"encoding/json"

	"github.com/deputy-ha/deputy/sdk"
)

// execAbout describes the plugin that is built in, as others do themselves.
func execAbout() about {
	return about{
		Name:         execPlugin,
		Version:      versionOf().Version,
		Capabilities: []sdk.Capability{sdk.CanPromote, sdk.CanDemote, sdk.CanCheck, sdk.CanFollow, sdk.CanFence},
		Doc:          execDoc,
		Schema:       json.RawMessage(execSchema),
	}
}

const execDoc = `Runs programs of yours, a fresh process for each call.

A program is told what to do by its environment: DEPUTY_ACTION (promote, demote,
check, follow, fence), DEPUTY_SERVICE, DEPUTY_NODE, DEPUTY_TERM, DEPUTY_MODE (planned
or forced), DEPUTY_REASON, DEPUTY_TIMEOUT_MS, DEPUTY_LEASE_UNTIL_MS,
DEPUTY_PREVIOUS_NODE, DEPUTY_PRIMARY_NODE, DEPUTY_PRIMARY_ADDRESS, DEPUTY_ATTEMPT,
DEPUTY_STATE_DIR; an act has all of it on standard input as well, as JSON. Its exit
code is its answer:

| code | of an act |
|---|---|
| 0 | done, and seen to be done |
| 10 | nothing had to be done. A promote that says so for what is promoted already keeps the role when deputy is restarted; 0 there means that it was not |
| 20 | refused: nothing was changed, and asking again is of no use |
| 40 | a newer term was seen |
| 75 | nothing was changed; ask again |
| other | unknown, as after a signal or a timeout: the part may be primary |

A check answers as Nagios plugins do: 0 fit, 1 fit with a warning, 2 not fit, 3 (UNKNOWN)
not fit either unless unknown = "warning" is set. The first line of its output, up
to a bar, is what deputy status shows; all of its answer with its perfdata is in the
journal when its exit code changes.

At its deadline a program gets SIGTERM and a second later SIGKILL, in a forced
demotion SIGKILL at once, with all that it has started.`

const execSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "promote": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "makes the part act as primary: the program's absolute path and its arguments; no shell is involved"},
    "demote": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "makes the part not act as primary; needed beside promote, and run at every start"},
    "check": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "tells whether this node is fit"},
    "follow": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "points the part to the primary on another node"},
    "fence": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "makes sure that another node is down"},
    "user": {"type": "string", "description": "runs them as this user, for which deputy has to be root"},
    "forced_bound": {"type": "string", "pattern": "ns|us|ms|s|m|h", "description": "a forced demotion takes no longer"},
    "unknown": {"type": "string", "enum": ["unfit", "warning"], "default": "unfit", "description": "what a check that exits with 3, UNKNOWN, is: as one that fails, or fit with a warning"}
  },
  "additionalProperties": false
}`
