// Package sdktest proves that a plugin keeps the contract: it starts the plugin
// as a supervisor would, asks, interrupts, stops, kills and abandons it, and
// tells for each rule whether the plugin kept it.
//
//	func TestContract(t *testing.T) {
//		sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
//			Settings: map[string]any{"file": filepath.Join(t.TempDir(), "greeting")},
//		})
//	}
//
// What it guarantees: every case is bounded, whatever the plugin does; a case
// that fails says what was done, what was seen and what the contract says; a
// case that needs what the plugin lacks is skipped with the reason; and in the
// end the plugin is demoted, unless it refuses to be, and its processes are
// gone.
//
// What it does not guarantee: that a plugin that passes does what it promises.
// Only its author can look at the world: see [Config.Promoted]. The cases really
// promote and demote where they run.
package sdktest
