# Sourced by the scripts beside it: sets `root` and `python`, the interpreter of the repository's .venv.
# ensure_environment EXTRA makes that environment, or brings it up to date where pyproject.toml has changed since.
# lane NAME chooses another one beside it: `lowest`, of the lowest versions allowed; `qat`, with torch; or a version of
# Python.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python
base= # the Python to make it with; the first that is found where it is empty
constraints=/dev/null
index= # beside those that pip knows
torch_index=https://download.pytorch.org/whl/cpu

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

# Prints a Python of this version: on the path, the one of .venv, or one that pyenv keeps.
find_version() {
    for name in "python$1" "$root/.venv/bin/python" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1"; do
        if "$name" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# 77: there is no such Python, or no package index answers, and a line has said so.
lane() {
    case $1 in
    lowest | qat) version=3.11 ;;
    *) version=$1 ;;
    esac
    if ! base=$(find_version "$version"); then
        echo "$(basename -- "$0"): no Python $version is here: its tests are left out" >&2
        return 77
    fi
    venv=$root/.venv-$1
    python=$venv/bin/python
    if [ "$1" = lowest ]; then
        constraints=$root/.venv-lowest.txt
        "$base" "$root/tools/lowest.py" >"$constraints" || fail "tools/lowest.py failed (see above)"
    fi
    if ! "$base" -m pip --disable-pip-version-check --retries 0 --timeout 10 index versions click >/dev/null 2>&1; then
        echo "$(basename -- "$0"): no package index answers: the tests of $1 are left out" >&2
        return 77
    fi
    if [ "$1" = qat ]; then
        cpu_torch || return
    fi
}

# Have a torch for CPUs alone chosen: the usual one for x86 brings gigabytes for GPUs. An index that does not answer is
# passed over; some other one may have such a torch.
cpu_torch() {
    index=$torch_index
    if ! "$base" -m pip --isolated --disable-pip-version-check --retries 0 --timeout 10 index versions torch \
        --index-url "$index" >/dev/null 2>&1; then # isolated: of what else is configured none may answer for it
        index= # else pip would ask it again for every package
    fi
    found=$("$base" -m pip --disable-pip-version-check --retries 0 --timeout 10 index versions torch \
        ${index:+--extra-index-url "$index"} 2>/dev/null | grep -o '[0-9][0-9.]*+cpu' | head -n 1)
    if [ -z "$found" ]; then
        echo "$(basename -- "$0"): no torch for CPUs is to be had here: the tests of qat are left out" >&2
        return 77
    fi
    constraints=$root/.venv-qat.txt
    echo "torch==$found" >"$constraints"
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
        if [ -z "$base" ]; then
            base=$(find_python) || exit 2
        fi
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
    "$python" -m pip install -qq --disable-pip-version-check ${index:+--extra-index-url "$index"} \
        -c "$constraints" --editable "$target" >&2 ||
        fail "the dependencies could not be installed (see above)"
    echo "$wanted" >"$stamp"
}
