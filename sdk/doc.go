// Package sdk holds what deputy and its plugins agree on: roles, terms, acts
// and their outcomes.
//
// What it guarantees: a term only grows and names one tenure of one service
// for ever, so whoever remembers the highest term it has seen can refuse an
// older primary; and an outcome says what was observed, never what was asked
// for. What it does not guarantee: that an act whose outcome is OutcomeUnknown had no
// effect. OutcomeUnknown means "may be primary".
//
// This is the only package of the project that promises compatibility.
package sdk
