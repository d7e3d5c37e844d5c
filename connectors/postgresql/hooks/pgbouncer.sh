#!/bin/sh
# Hooks for clients behind PgBouncer (1.15 or later): they wait while writes move, and see no error.
#
#   cutover:
#     hooks:
#       pause_clients: "/etc/bridge/pgbouncer.sh pause"
#       resume_clients: "/etc/bridge/pgbouncer.sh resume"
#       restore_clients: "/etc/bridge/pgbouncer.sh restore"
#
# Settings, in the environment or in a file beside this one called pgbouncer.env:
#   PGBOUNCER_ADMIN      how psql reaches the console, e.g. "host=/run/pgbouncer port=6432 user=admin dbname=pgbouncer"
#   PGBOUNCER_FILE       a file of its own that pgbouncer.ini takes in with %include and that has nothing but [databases];
#                        this script writes it, so the user that runs bridge must be able to
#   PGBOUNCER_DATABASE   what clients call the database that they write to
#   PGBOUNCER_READS      what they call the one that they only read from; leave it out if there is none
#   PGBOUNCER_SOURCE, PGBOUNCER_TARGET   where each is, e.g. "host=old-db port=5432 dbname=shop pool_mode=transaction"
#   PGBOUNCER_PATIENCE   seconds for which the end of running transactions is waited for; 5 unless said otherwise
#
# `pause` leaves a guard behind that lets clients go again if nobody does in time: a bridge that was killed must not hold
# them up for ever. They are then where they were; if writes are stopped there, they are told so and may try again.
set -eu

here=$(dirname "$0")
[ ! -f "$here/pgbouncer.env" ] || . "$here/pgbouncer.env"
: "${PGBOUNCER_ADMIN:?is not set: see the top of pgbouncer.sh}" "${PGBOUNCER_FILE:?is not set}" "${PGBOUNCER_DATABASE:?is not set}"
: "${PGBOUNCER_SOURCE:?is not set}" "${PGBOUNCER_TARGET:?is not set}"
mark="$PGBOUNCER_FILE.paused"

console() { PGCONNECT_TIMEOUT=5 psql -qXAt -v ON_ERROR_STOP=1 "$PGBOUNCER_ADMIN" -c "$1"; }

place() {
    case $1 in
        source) echo "$PGBOUNCER_SOURCE" ;;
        target) echo "$PGBOUNCER_TARGET" ;;
        *) echo "pgbouncer.sh: neither source nor target: '$1'" >&2; exit 1 ;;
    esac
}

# Lets clients go. That the database is not paused is no failure.
release() {
    rm -f "$mark"
    message=$(console "RESUME \"$PGBOUNCER_DATABASE\"" 2>&1) && return 0
    case $message in *"not paused"*) return 0 ;; esac
    echo "$message" >&2
    return 1
}

point() {
    writes=$(place "${BRIDGE_WRITES:?is set by bridge}")
    {
        echo "[databases]"
        echo "$PGBOUNCER_DATABASE = $writes"
        if [ -n "${PGBOUNCER_READS:-}" ]; then
            reads=$(place "${BRIDGE_READS:?is set by bridge}")
            echo "$PGBOUNCER_READS = $reads"
        fi
    } > "$PGBOUNCER_FILE.new"
    mv "$PGBOUNCER_FILE.new" "$PGBOUNCER_FILE"
    console RELOAD
}

case ${1:-} in
    pause)
        token="${BRIDGE_ATTEMPT:?is set by bridge} $$"
        echo "$token" > "$mark"
        # Whatever ends this before clients are held back lets them go again.
        trap 'release || true; exit 1' TERM INT HUP
        PGOPTIONS='' timeout "${PGBOUNCER_PATIENCE:-5}" psql -qXAt -v ON_ERROR_STOP=1 "$PGBOUNCER_ADMIN" \
            -c "PAUSE \"$PGBOUNCER_DATABASE\"" || { release || true; echo "pgbouncer.sh: clients did not come to rest" >&2; exit 1; }
        trap - TERM INT HUP
        setsid sh -c '
            sleep "$1"
            [ "$(cat "$2" 2>/dev/null)" = "$3" ] || exit 0
            rm -f "$2"
            exec psql -qXAt "$4" -c "RESUME \"$5\""
        ' guard "${BRIDGE_LEASE_SECONDS:-10}" "$mark" "$token" "$PGBOUNCER_ADMIN" "$PGBOUNCER_DATABASE" </dev/null >/dev/null 2>&1 &
        ;;
    resume)
        point
        release
        ;;
    restore)
        release
        ;;
    *)
        echo "usage: pgbouncer.sh pause|resume|restore" >&2
        exit 64
        ;;
esac
