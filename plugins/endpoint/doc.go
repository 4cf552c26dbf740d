// Package endpoint is what plugins share that ask a server whether it is well:
// how it is reached, by TCP, by a unix socket, and by TLS over either, and what
// is said of the answer.
//
// What it guarantees: nothing is asked by a proxy that the environment names. A
// certificate is verified unless the settings say otherwise, and then every
// answer tells so. Certificates and keys are read anew for each connection, so
// that those that are renewed need no reload. What a check has seen is told even
// where its time is over, since it ends a little before.
//
// What it does not: revocation lists and OCSP are not asked, as Go's TLS does not.
package endpoint
