# Sourced by the scripts beside it: sets `root` and `python`, the interpreter of the repository's .venv.
# ensure_environment EXTRA makes that environment, or brings it up to date where pyproject.toml has changed since.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python

fail() {
    echo "$(basename -- "$0"): $*" >&2
    exit 2
}

# Prints the first Python that is new enough. A shim may be found and still refuse to run, hence the test call.
find_python() {
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    fail "needs Python 3.11 or newer, and found none: install it (Debian: apt install python3 python3-venv)"
}

# The stamp holds what was installed: the extras, and a checksum of pyproject.toml.
ensure_environment() {
    extra=$1
    stamp=$venv/.edgeq-installed
    wanted="$extra $(cksum <"$root/pyproject.toml")"
    if [ -x "$python" ] && [ -f "$stamp" ]; then
        installed=$(cat "$stamp")
        # What the tests need includes what the demo needs.
        if [ "$installed" = "$wanted" ] || [ "$installed" = "dev ${wanted#* }" ]; then
            return
        fi
    fi
    if ! [ -x "$python" ]; then
        base=$(find_python) || exit 2
        echo "$(basename -- "$0"): making $venv with $base" >&2
        if ! "$base" -m venv "$venv" >&2; then
            rm -rf -- "$venv" # half an environment would pass for a whole one the next time
            fail "$base cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)"
        fi
    fi
    echo "$(basename -- "$0"): installing edgeq and its dependencies into $venv" >&2
    target=$root
    if [ -n "$extra" ]; then
        target="$root[$extra]"
    fi
    "$python" -m pip install -qq --disable-pip-version-check --editable "$target" >&2 ||
        fail "the dependencies could not be installed (see above)"
    echo "$wanted" >"$stamp"
}
