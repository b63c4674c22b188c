#!/bin/sh
# install.sh VENV [test]: make the environment and install dasnet into it, for tests with their tools and all extras; does
# nothing where nothing changed.
set -eu
venv=$1
purpose=${2:-run}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "dasnet needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=..." >&2
    exit 2
}
stamp=$venv/.installed-$purpose
state=$(cat pyproject.toml constraints.txt model/native/*.h model/native/*.cpp | cksum)
# What the tests install includes what a run needs.
for have in "$stamp" "$venv/.installed-test"; do
    [ "$(cat "$have" 2>/dev/null)" = "$state" ] && exit 0
done
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
    echo "cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
    exit 2
}
echo "installing into $venv ..."
log=$venv/install.log
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# While pip downloads: it needs a compiler and the standard library.  Tests also run what a lesser processor would.
{
    "$venv/bin/python" -m model.native.library
    [ "$purpose" = run ] || "$venv/bin/python" -c \
        'from model.native.library import build, usable_variants; build(usable_variants()[-1:])'
} >"$venv/native.log" 2>&1 &
{
    if [ "$purpose" = test ]; then
        pip install "pip>=25.1" && # the first that knows dependency groups
            pip install --no-compile -c constraints.txt -e ".[baselines,coco,cot,docs,export,nats,notify,plot,push,ray,s3,sapient,tensorboard]" --group test
    else
        pip install --no-compile -c constraints.txt -e .
    fi
} >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "installation failed; the whole log is $log" >&2
    exit 1
}
wait
grep "^native engine" "$venv/native.log" || true
# Compiled is what is imported, also where bytecode is otherwise not written.
PYTHONDONTWRITEBYTECODE='' "$venv/bin/python" -c 'import pipeline, model, torch'
printf '%s' "$state" >"$stamp"
