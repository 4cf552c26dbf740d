#!/bin/sh
# What orchestrator has run for years, from its configuration:
#	"PostMasterFailoverProcesses": [ "/usr/local/bin/post-failover.sh {failedHost} {successorHost}" ]
# Has the proxy on this host write to the successor.
[ -n "$2" ] || exit 1
mkdir -p /run/app
echo "writer=$2 was=$1 type=$ORC_FAILURE_TYPE cluster=$ORC_FAILURE_CLUSTER_ALIAS" >/run/app/writer.new
mv /run/app/writer.new /run/app/writer
