package sdk

import (
	"encoding/json"

	"github.com/deputy-ha/deputy/sdk/manual"
)

// SettingsTable returns what a plugin's settings are as a table in Markdown, for
// its README. A test of the plugin may hold the README against it.
func SettingsTable(p Plugin) string {
	settings, err := manual.Settings(json.RawMessage(p.settings.schema()))
	if err != nil {
		panic(err) // it is ours
	}
	return manual.Markdown(settings)
}
