// Package proto is the wire between deputy and its plugins, deputy.plugin.v1,
// and what both sides have to know before the first call.
//
// What it guarantees: the wire only grows; `make check` compares it with
// wire.binpb, as it was when this version was released. What it does not: any
// behaviour. Package sdk serves it, package wire calls it.
package proto

// A host and a plugin find each other by go-plugin's handshake: the host sets
// CookieKey to CookieValue, and the plugin answers with the highest version of
// the protocol that both know. The cookie is no secret; it tells a plugin that
// it was started by a host rather than by hand.
const (
	CookieKey   = "DEPUTY_PLUGIN"
	CookieValue = "deputy.plugin"

	Version = 1 // of the protocol; Version N speaks package deputy.plugin.vN

	ServiceName = "plugin" // under which go-plugin dispenses the service
)
