#!/bin/bash
# certificates.sh FOLDER HOST...: make the certificates of mutual TLS between Envoy and the service.
# FOLDER/service and FOLDER/envoy get tls.crt, tls.key and ca.crt each. HOST is the name by which
# Envoy knows the service. They are valid for DAYS (365) and signed by an authority of their own,
# whose key is not kept. If FOLDER/service/tls.crt exists, nothing is changed.
set -euo pipefail
umask 027
folder=${1:?the folder to write to}
hosts=("${@:2}")
: "${hosts:?the host of the service, after the folder}"
days=${DAYS:-365}
if [[ -e $folder/service/tls.crt ]]; then
  echo "$folder/service/tls.crt exists: nothing was changed. Remove $folder to make new ones."
  exit
fi
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
quietly() { "$@" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; }
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

cat >"$work/authority.cnf" <<'END'
[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
END
quietly openssl req -x509 -config "$work/authority.cnf" "${key[@]}" -days "$days" \
  -subj '/CN=dualpool' -keyout "$work/ca.key" -out "$work/ca.crt"

issue() { # NAME USAGE HOST...
  local names=("${@:3}")
  names=("${names[@]/#/DNS:}")
  mkdir -p "$folder/$1"
  quietly openssl req -config "$work/authority.cnf" "${key[@]}" -subj "/CN=dualpool $1" \
    -keyout "$work/$1.key" -out "$work/$1.csr"
  printf '%s\n' 'basicConstraints = critical, CA:FALSE' 'keyUsage = critical, digitalSignature' \
    "extendedKeyUsage = $2" "subjectAltName = $(IFS=,; echo "${names[*]}")" >"$work/$1.cnf"
  quietly openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -days "$days" -extfile "$work/$1.cnf" \
    -out "$work/$1.crt"
  cp "$work/ca.crt" "$folder/$1/ca.crt"
  # The group reads it too: Envoy's user is in the service's group.
  install -m 640 "$work/$1.key" "$folder/$1/tls.key"
  cp "$work/$1.crt" "$folder/$1/tls.crt"
}
issue envoy clientAuth envoy
issue service serverAuth "${hosts[@]}"
echo "$folder: certificates for ${hosts[*]}, valid for $days days"
