// Package e2e tests deputy as an operator meets it: packages installed on real
// hosts with systemd as their first process, three members of etcd, and a
// prober that knows nothing of deputy.
//
// What it guarantees: hosts are machines of Debian 12 (systemd 252) and Debian
// 13 (systemd 257) in containers, with a network and a lab that nobody else
// sees; everything ends with the test process, however that ends, but for root
// file systems, which are kept for the next run. Every scenario fails when two
// hosts were heard at once.
//
// What it does not guarantee: what containers share, they share: there is one
// kernel, one clock, and no firmware. Figures are those of a machine on which
// three hosts, etcd and the prober run together.
//
// The tests run with DEPUTY_E2E=1, as `make e2e` sets it, and need root:
//
//	DEPUTY_E2E_DEBIAN  bookworm, trixie or both (the default)
//	DEPUTY_E2E_RUNS    how often what is measured is repeated; 3 unless set
//	DEPUTY_E2E_TELL    not empty: every scenario prints the journals of the hosts
//	DEPUTY_E2E_PEERS   not empty: hosts with keepalived and Pacemaker are booted, for
//	                   TestPeers alone, and nothing of deputy is built
//	DEPUTY_E2E_MYSQL   not empty: hosts with databases are booted, for TestMySQL
//	DEPUTY_E2E_DURATION, DEPUTY_E2E_SEED, DEPUTY_E2E_STEPS
//	                   see TestNemesis
//	DEPUTY_E2E_CACHE   where root file systems are kept; deputy-e2e in
//	                   XDG_CACHE_HOME, or in /var/cache
package e2e
