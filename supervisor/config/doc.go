// Package config reads what an administrator wrote: deputy.toml with its
// drop-ins, and one file per service.
//
// What it guarantees: a [Node] or [supervisor.Service] that it returns keeps
// every rule there is about it, alone and in relation to its other settings,
// with all defaults filled in. A file that breaks a rule is refused with all
// its mistakes at once, as [Mistakes]: each names file, line, column and key,
// and says what would be right. A broken service file keeps no other service
// from being used. Passwords are read from files of their own when they are
// needed, and appear in no error, no print and no hash; those that are written out
// in the settings of a plugin are part of the definition as all of them.
//
// What it does not guarantee: that what a definition names exists. Whether
// plugins, users, programs and addresses are there is asked where they are
// used; whether a plugin likes its settings only the plugin knows, but for the
// built-in exec.
//
// The whole of it:
//
//	node, err := config.LoadNode("/etc/deputy/deputy.toml")     // and deputy.d/*.toml
//	installed := …                                              // found in node.PluginDirs
//	services, err := config.LoadServices("/etc/deputy/services.d", installed)
//	orders, err := services.Get("orders-db")                    // or its mistakes
//	password, err := node.Reveal(node.Etcd.Password)            // at use
//	err = config.CheckForced(orders, bounds)                    // once the plugins have told theirs
//	config.Arithmetic(orders).Write(os.Stdout)                  // what `deputy check` prints
package config
