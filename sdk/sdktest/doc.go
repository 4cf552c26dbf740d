// Package sdktest proves that a plugin keeps the contract, and lets its author
// write unit tests for it.
//
// [NewSupervisor] is for those: a fake supervisor that calls a plugin in the
// test's own process, on virtual time, as the real one would.
//
//	func TestSwitchover(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			s := sdktest.NewSupervisor(t, plugin, sdktest.Service{})
//			s.Promote()
//			s.Pass(time.Minute) // of renewals
//			s.Switchover("db2")
//		})
//	}
//
// [Run] is the proof. It starts the plugin's program as a supervisor would, asks,
// interrupts, stops, kills and abandons it, and tells for each rule of the
// contract whether the plugin kept it.
//
//	func TestContract(t *testing.T) {
//		sdktest.Run(t, sdktest.Binary(sdktest.Build(t, ".")), sdktest.Config{
//			Settings: map[string]any{"file": filepath.Join(t.TempDir(), "greeting")},
//		})
//	}
//
// What the proof guarantees: every case is bounded, whatever the plugin does; a case
// that fails says what was done, what was seen and what the contract says; a
// case that needs what the plugin lacks is skipped with the reason; and in the
// end the plugin is demoted, unless it refuses to be, and its processes are
// gone.
//
// What it does not guarantee: that a plugin that passes does what it promises.
// Only its author can look at the world: see [Config.Promoted]. The cases really
// promote and demote where they run.
package sdktest
