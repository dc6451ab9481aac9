# Sourced by ./try: one proxy, one agent and a small page, joined the way a real instance joins.
# shellcheck shell=bash

demo_pids=()

# Puts the two binaries' folder into $demo_bin.
demo_build() {
    if [ -n "${LATCHKEY_BIN_DIR:-}" ]; then
        demo_bin=$LATCHKEY_BIN_DIR
    else
        (cd "$ROOT" && cargo build --locked --quiet --profile fast -p latchkey-proxy -p latchkey-agent)
        demo_bin=$(cd "$ROOT" && cd "${CARGO_TARGET_DIR:-target}/fast" && pwd)
    fi
}

demo_free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# $1 name of the log, rest: the program
demo_run() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    demo_pids+=($!)
}

demo_stop() {
    local pid
    for pid in "${demo_pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    # A second one ends a drain at once.
    sleep 0.2
    for pid in "${demo_pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait "${demo_pids[@]}" 2>/dev/null || true
}

# Returns when one of the programs has ended, which none should.
demo_wait() {
    wait -n "${demo_pids[@]}" || true
    echo "a program ended; its last words are in $work/*.log" >&2
    return 1
}

# $1: what is waited for, at most 30 s; fails as soon as one of the programs has ended. Rest: the test for it.
demo_until() {
    local what=$1 end=$((SECONDS + 30)) pid
    shift
    until "$@"; do
        for pid in "${demo_pids[@]}"; do
            if ! kill -0 "$pid" 2>/dev/null; then end=0; fi
        done
        if [ $SECONDS -ge $end ]; then
            echo "$what did not come up. Last words:" >&2
            tail -n 15 "$work"/*.log >&2
            return 1
        fi
        sleep 0.1
    done
}

# $1 folder, $2 the proxy's port
demo_start() {
    local work=$1 port=$2 origin key
    origin=$(demo_free_port)
    mkdir -p "$work/page" "$work/state"
    chmod 700 "$work"

    echo "<!doctype html><title>Latchkey</title><h1>It works</h1><p>This page came through proxy and agent." >"$work/page/index.html"
    demo_run "$work/origin.log" python3 -m http.server --bind 127.0.0.1 --directory "$work/page" "$origin"

    # The instance's side: a key of its own, made here and never sent anywhere. Only its hash leaves.
    key=$("$demo_bin/latchkey-agent" key --state "$work/state" | grep -oE '[0-9a-f]{64}' | head -1)

    # The proxy's side: a key for tokens and a table of routes. Its session API's certificate it makes itself.
    openssl rand -base64 32 | tr '+/' '-_' >"$work/fernet.keys"
    chmod 600 "$work/fernet.keys"
    cat >"$work/routes.yaml" <<END
revision: 1
domain: localhost
routes:
- id: demo/home
  hostnames: [home.localhost]
  agentKeys: ["$key"]
END
    demo_run "$work/proxy.log" "$demo_bin/latchkey-proxy" --listen "127.0.0.1:$port" --fernet-keys "$work/fernet.keys" \
        --routes "$work/routes.yaml" --api-tls "$work/api-tls"
    demo_until "The proxy" test -s "$work/api-tls/ca.crt"

    python3 - "$work" "$port" <<'PY'
import json, pathlib, sys
work, port = pathlib.Path(sys.argv[1]), sys.argv[2]
bundle = {"server": f"127.0.0.1:{port}", "serverName": "connect.localhost", "ca": (work / "api-tls/ca.crt").read_text()}
(work / "bundle.json").write_text(json.dumps(bundle, indent=1))
PY
    demo_run "$work/agent.log" "$demo_bin/latchkey-agent" --join "$work/bundle.json" --state "$work/state" \
        --mode terminate --target "127.0.0.1:$origin"
    demo_until "The page" demo_visit "$work" "$port"
}

# A visitor's handshake; keeps the certificate it was shown.
demo_visit() {
    timeout 10 openssl s_client -connect "127.0.0.1:$2" -servername home.localhost </dev/null 2>/dev/null |
        openssl x509 -out "$1/seen.pem" 2>/dev/null
}

demo_plain() { tr -d ': \n' | tr 'A-F' 'a-f' | grep -oE '[0-9a-f]{64}' | head -1; }

# What the agent says its certificate is.
demo_fingerprint() {
    "$demo_bin/latchkey-agent" fingerprint --state "$1/state" | grep -iE '([0-9a-f]{2}:?){32}' | head -1 | sed 's/.*\b\(\([0-9A-Fa-f]\{2\}:\?\)\{32\}\).*/\1/' | demo_plain
}

# What a visitor is shown.
demo_fingerprint_seen() {
    openssl x509 -in "$1/seen.pem" -noout -fingerprint -sha256 | sed 's/.*=//' | demo_plain
}

demo_fetch() {
    curl --silent --show-error --fail --max-time 10 --cacert "$1/state/self-signed.pem" "https://home.localhost:$2/"
}
