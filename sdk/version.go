package sdk

import (
	"runtime/debug"
	"strings"
)

// versionOrBuild is the plugin's version, by default that of the module that
// its program is built from.
func (p Plugin) versionOrBuild() string {
	if info, ok := debug.ReadBuildInfo(); ok && p.version == "" {
		return strings.Trim(info.Main.Version, "()") // (devel)
	}
	return p.version
}

// sdkVersion is the version of this package that the program is built with.
func sdkVersion() string {
	const module = "github.com/deputy-ha/deputy"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			return strings.Trim(m.Version, "()")
		}
	}
	return ""
}
