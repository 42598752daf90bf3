#!/bin/sh
# Makes what all API and worker processes have to share, as files in $SECRETS that their user alone
# reads. Safe to run again: what is there stays, unless a variable gives another.
set -eu
umask 077

keep() {
    file="$SECRETS/$1" given=$2 prefix=$3
    if [ -n "$given" ]; then
        printf '%s' "$given" >"$file.new"
    elif [ ! -s "$file" ]; then
        printf '%s%s' "$prefix" "$(head -c 32 /dev/urandom | base64)" >"$file.new"
    else
        return 0
    fi
    mv "$file.new" "$file"
}

keep callbacks "${CALLBACKS_SECRET:-}" whsec_
keep completions "${COMPLETIONS_SECRET:-}" ""
keep session "${SESSION_SECRET:-}" ""
