#!/bin/sh
# What the tests need besides Python packages: a real RTSP server, a real browser, a real Prometheus, a C++ compiler for
# the native engine, and what breaks networks. Debian names.
set -eu
packages="gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad chromium
prometheus prometheus-alertmanager g++ iproute2 nftables"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "missing for the tests:$missing" >&2
echo "install them as root: apt-get install -y --no-install-recommends$missing" >&2
exit 1
