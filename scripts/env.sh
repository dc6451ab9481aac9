# Sourced by the scripts: where things are kept, and which toolchain builds.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

# Everything that may be used again lives here, outside of the checkout: `git clean` costs nobody an hour.
export LATCHKEY_CACHE="${LATCHKEY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/latchkey}"

# Logs are files: no colours, no progress bars.
export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never

# Servers such as nginx live in sbin, cargo and Go in their own folders; none need be on the caller's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/go/bin"
export PATH

# Rust: the version of rust-toolchain.toml, under whatever name it is installed; else rustup is asked for it.
choose_toolchain() {
    local version name
    version=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
    if ! command -v rustup >/dev/null; then
        rustc --version 2>/dev/null | grep -qF "rustc $version " && return 0
        echo "Rust $version is needed and rustup is not installed: see https://rustup.rs" >&2
        return 1
    fi
    [ -n "${RUSTUP_TOOLCHAIN:-}" ] && return 0
    if (cd "$ROOT" && RUSTUP_AUTO_INSTALL=0 rustc --version 2>/dev/null | grep -qF "rustc $version "); then
        return 0
    fi
    for name in $(rustup toolchain list | awk '{print $1}'); do
        if rustup run "$name" rustc --version 2>/dev/null | grep -qF "rustc $version "; then
            export RUSTUP_TOOLCHAIN="$name"
            return 0
        fi
    done
    rustup toolchain install "$version" --profile minimal --component rustfmt --component clippy >&2
}

# One build folder per toolchain and Cargo.lock, so that another branch's build does not throw this one's away.
choose_target_dir() {
    [ -n "${CARGO_TARGET_DIR:-}" ] && return 0
    local key
    key=$( (cat "$ROOT/Cargo.lock"; cd "$ROOT" && rustc --version) | sha256sum | cut -c1-12)
    export CARGO_TARGET_DIR="$LATCHKEY_CACHE/target/$key"
    mkdir -p "$CARGO_TARGET_DIR" && touch "$CARGO_TARGET_DIR"
    # The two used last are kept.
    find "$LATCHKEY_CACHE/target" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' |
        sort -rn | tail -n +3 | cut -d' ' -f2- | xargs -r -d '\n' rm -rf
}

# Where `tools.versions` says a tool is: one folder per name and version.
tool_dir() {
    awk -v root="$LATCHKEY_CACHE/tools" -v name="$1" '$1 == name { print root "/" name "-" $2 }' "$ROOT/scripts/tools.versions"
}

# The last line of a step that could not run: the runner reads it from the log.
skip() {
    echo "SKIPPED: $*"
    exit 77
}
