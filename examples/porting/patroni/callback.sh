#!/bin/sh
# What Patroni has run for years, from its configuration:
#	postgresql: { callbacks: { on_start: /etc/patroni/callback.sh, on_stop: …, on_role_change: … } }
# Arguments: the action, the role that the node has now, the cluster's name.
mkdir -p /run/app
case $1/$2 in
on_start/primary | on_role_change/primary | on_role_change/master)
	echo "host=127.0.0.1 dbname=$3" >/run/app/pooler.new
	mv /run/app/pooler.new /run/app/pooler.ini
	;;
on_stop/* | on_role_change/* | on_start/*)
	rm -f /run/app/pooler.ini
	;;
esac
