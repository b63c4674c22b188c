#!/bin/sh
# Debian packages that the tests need besides Python's: installed as root, otherwise named.  SYSTEM_PACKAGES=0 skips them.
set -eu
# package:what it is for:tests that are skipped without it
needs="
gir1.2-gst-rtsp-server-1.0:a real RTSP server:RTSP cameras
python3-gi:a real RTSP server:RTSP cameras
gstreamer1.0-plugins-base:a real RTSP server:RTSP cameras
gstreamer1.0-plugins-good:a real RTSP server:RTSP cameras
gstreamer1.0-plugins-bad:a real RTSP server:RTSP cameras
chromium:a real browser:console pages
prometheus:a real Prometheus:dashboard and alert rules
prometheus-alertmanager:a real Alertmanager:alert rules
mosquitto:a real MQTT broker:MQTT sink
g++:the native engine:native engine
iproute2:network namespaces:packet loss and links between hosts
nftables:packet loss:packet loss and links between hosts
"
missing=$(echo "$needs" | while IFS=: read -r package purpose tests; do
    [ -z "$package" ] || dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        echo "$package:$purpose:$tests"
done)
[ -z "$missing" ] && exit 0
names=$(echo "$missing" | cut -d: -f1 | tr '\n' ' ')
if [ "${SYSTEM_PACKAGES:-1}" = 0 ]; then
    echo "SYSTEM_PACKAGES=0: without $names these tests are skipped:" >&2
    echo "$missing" | cut -d: -f3 | sort -u | sed 's/^/  /' >&2
    exit 0
fi
echo "the tests need these Debian packages:"
echo "$missing" | cut -d: -f1,2 | sed 's/^/  /; s/:/ for /'
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing them (SYSTEM_PACKAGES=0 skips this) ..."
    # shellcheck disable=SC2086
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names >/dev/null && exit 0
fi
echo "install them as root: apt-get install -y --no-install-recommends $names" >&2
echo "or run SYSTEM_PACKAGES=0 make test, which skips the tests that need them" >&2
exit 1
