#!/bin/sh
# lock.sh: pin every dependency anew, in constraints.txt (what is installed together and tested) and, with hashes, in
# deploy/requirements.lock (what a service is installed from: Linux, x86-64, Python 3.11).  Needs uv.
set -eu
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-annotate --custom-compile-command "sh scripts/lock.sh" "$@"; }
pinned=$(grep -E '^torch(vision)?==' constraints.txt)
printf '%s\n' "$pinned" >/tmp/pinned.$$
trap 'rm -f /tmp/pinned.$$ /tmp/override.$$ /tmp/constraints.$$' EXIT
echo "triton>=3.9" >/tmp/override.$$ # the tests' interpreter; a torch with CUDA brings its own version
compile pyproject.toml --all-extras --group test -c /tmp/pinned.$$ --override /tmp/override.$$ -o /tmp/constraints.$$
grep -v '^triton==' /tmp/constraints.$$ >constraints.txt
grep -q '^torchvision==' constraints.txt || printf '%s\n' "$pinned" | grep torchvision >>constraints.txt
compile pyproject.toml --extra cot --extra nats --extra notify --extra push --extra sapient --generate-hashes -c constraints.txt -o deploy/requirements.lock
