#!/bin/bash
# run.sh FILE COMMAND...: run the command, with the flags of FILE if its name ends with .args.
# Once FILE changes the command is told to stop, and Docker starts it anew with what is there now.
file=$1
shift
seen=$(<"$file")
[[ $file == *.args ]] && set -- "$@" $seen
(while sleep 2 && [[ $(<"$file") == "$seen" ]]; do :; done; kill -TERM 1) &
exec "$@"
