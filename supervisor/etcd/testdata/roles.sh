# Who may do what, for the prefix "/deputy". With client certificates, user is
# whatever common name they have; replace --no-password by a password, given
# interactively, for those that sign in with username and password.

# Nodes: everything below the prefix, since any node may have to take any role.
# Presence and the state of etcd need no grants. Compaction would need root: let
# etcd do it, with --auto-compaction-mode=periodic --auto-compaction-retention=5m,
# and set compact = "off" in [etcd].
etcdctl role add deputy
etcdctl role grant-permission deputy --prefix=true readwrite /deputy/v1/
etcdctl user add deputy --no-password
etcdctl user grant-role deputy deputy

# Those who only look: deputy status, watch, explain, history, check --deep.
etcdctl role add deputy-viewer
etcdctl role grant-permission deputy-viewer --prefix=true read /deputy/v1/
etcdctl user add deputy-viewer --no-password
etcdctl user grant-role deputy-viewer deputy-viewer

# Nothing of this counts before authentication is on, and that needs a root.
etcdctl user add root --no-password
etcdctl user grant-role root root
etcdctl auth enable
