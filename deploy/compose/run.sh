#!/bin/bash
# run.sh FILE COMMAND...: run the command. If FILE is one of .args, its flags are added, and each
# NAME=value of it is set. Once FILE changes the command is told to stop, and Docker starts it anew.
file=$1
shift
seen=$(<"$file")
[[ $file == *.args ]] && for word in $seen; do
  if [[ $word == --* ]]; then set -- "$@" "$word"; else export "$word"; fi
done
(while sleep 2 && [[ $(<"$file") == "$seen" ]]; do :; done; kill -TERM 1) &
exec "$@"
