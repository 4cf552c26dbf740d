package etcd

// What the log and deputy-operations(7) call the troubles of etcd, and what
// cures them. A test holds that the manual has each of them, in these words.
const (
	saidCare    = "etcd needs care"
	saidCured   = "etcd needs this care no more"
	saidStrange = "the records are not those that were here before"
	saidReplace = "etcd is not the one it was: it was replaced, or restored from a backup"

	lostMajority = "etcd has lost its majority"
	cutOff       = "no endpoint answers, so etcd is down, or this node is cut off from it"

	otherCluster  = "etcd is another cluster than before"
	otherPrefix   = "the prefix is another than before"
	wentBack      = "it was restored from a backup, or has lost what it had written"
	saidNeighbour = "is defined alike under another prefix"

	sawNoLeader = "this member sees no leader: " + lostMajority + ", or is electing: " + cureMajority
	sawCut      = "this member is cut off from the others: " + cureCut

	cureForeign   = "name the members of one etcd in [etcd] endpoints"
	cureStrange   = "set [etcd] right, or see ANOTHER ETCD in deputy-operations(7)"
	cureSilent    = "see to its machine, the network there, and etcd on it"
	cureCut       = "see to the network between the members, port 2380"
	cureStalled   = "its disk hangs, or it is overloaded; see its log and iostat, or stop it"
	cureMajority  = "start the members that are down"
	cureRenew     = "renew it"
	cureNeighbour = "nodes with another prefix are another cluster, with a primary of its own: set the same prefix in [etcd] on all nodes"
	cureClock     = "set the clock right; certificates, pauses, bans and the history go by it, leases do not"
)
