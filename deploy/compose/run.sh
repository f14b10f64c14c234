#!/bin/bash
# run.sh FILE COMMAND...: run the command. If FILE is one of .args, its flags are added, and each
# NAME=value of it is set. Once FILE changes the command is told to stop, and Docker starts it anew;
# the service is only told to load it again, unless what changed needs a restart.
file=$1
shift
seen=$(<"$file")
[[ $file == *.args ]] && for word in $seen; do
  if [[ $word == --* ]]; then set -- "$@" "$word"; else export "$word"; fi
done
fixed() { # print those lines of the file that only a restart changes
  local key= line
  while IFS= read -r line; do
    [[ $line == [a-z]* ]] && key=${line%%:*}
    if [[ $file != */dualpool.yaml || $key =~ ^(listen|workers|state|tracing) ]]; then
      echo "$line"
    fi
  done
}
(while sleep 2; do
  now=$(<"$file")
  if [[ $now == "$seen" ]]; then continue; fi
  if [[ $(fixed <<<"$now") != "$(fixed <<<"$seen")" ]]; then break; fi
  seen=$now
  kill -HUP 1
done; kill -TERM 1) &
exec "$@"
