#!/bin/sh
# sh install.sh VENV EXTRA [PYTHON]: make the environment VENV and install the pinned packages into it.
# An environment that was finished is brought up to date. Any other is made anew, also one of another EXTRA or PYTHON.
set -eu
venv=$1 extra=$2 asked=${3-}
cd "$(dirname "$0")"

fail() {
    echo "make: $1" >&2
    exit 1
}

# The version of a Python, if it is a supported one.
version() {
    "$1" -c 'import sys; v = sys.version_info[:2]; print("%d.%d" % v); sys.exit(not (3, 11) <= v <= (3, 13))' 2>/dev/null
}

is_finished() {
    [ "$(cat "$venv/.installed" 2>/dev/null)" = "$extra" ] && has=$(version "$venv/bin/python") || return 1
    [ ! "$asked" ] || [ "$(version "$asked")" = "$has" ]
}

# Sets `python` to the one that is asked for, or to the newest: the Python itself, where an environment is active.
find_python() {
    if [ "$asked" ]; then set -- "$asked"; else set -- python3.13 python3.12 python3.11 python3; fi
    for python; do
        if found=$(version "$python"); then
            python=$("$python" -c 'import sys; print(sys.base_prefix)')/bin/python$found
            return
        fi
    done
    [ ! "$asked" ] || fail "PYTHON=$asked is $("$asked" -V 2>/dev/null || echo 'not there'); expected Python 3.11, 3.12 or 3.13"
    python=3.13 # which uv downloads
    [ "$uv" ] || fail "no Python 3.11, 3.12 or 3.13 found; install one with its venv (apt install python3 python3-venv), or uv, which brings its own (https://docs.astral.sh/uv), or name one: make PYTHON=/path/to/python3.13"
}

# Two set-ups at once would remove each other's files.
exec 9<constraints.txt
if command -v flock >/dev/null; then
    flock -n 9 || { echo "another set-up is running; waiting for its end" && flock 9; } || :
fi

uv=$(command -v uv || :)
if ! is_finished; then
    find_python
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ "$(ls -A "$venv")" ]; then
        fail "VENV=$venv is a folder of other things; expected none, or an environment of Python"
    fi
    echo "1 of 2: $venv with $("$python" -V 2>/dev/null || echo "Python $python")${uv:+, made by uv}"
    [ ! -e "$venv" ] || find "$venv/" -mindepth 1 -delete
    if [ "$uv" ]; then uv venv --quiet --seed --python "$python" "$venv"; else "$python" -m venv "$venv"; fi
fi
echo "2 of 2: packages for $extra into $venv, about 3 GB, a minute or more"
if [ "$uv" ]; then install="uv pip install --python $venv/bin/python"; else install="$venv/bin/python -m pip install --disable-pip-version-check"; fi
$install --constraint constraints.txt --editable ".[$extra,dicom,show,dev]"
echo "$extra" >"$venv/.installed"
