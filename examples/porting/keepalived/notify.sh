#!/bin/sh
# What keepalived has run for years: notify /etc/keepalived/notify.sh
# Arguments: INSTANCE or GROUP, its name, MASTER, BACKUP, FAULT or STOP, the priority.
case $3 in
MASTER) (sleep 0.1 && mkdir -p /run/app && echo "$2 $4" >/run/app/active) & ;;
BACKUP | FAULT | STOP) rm -f /run/app/active & ;;
esac
exit 0
