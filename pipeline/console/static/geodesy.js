// Points on a sphere, as the server's geodesy: degrees and metres.

const EARTH_RADIUS_M = 6_371_008.8;
const rad = (degrees) => (degrees * Math.PI) / 180;
const deg = (radians) => (radians * 180) / Math.PI;

export function destination([lat, lon], azimuth, distanceM) {
  const [latitude, angle, direction] = [rad(lat), distanceM / EARTH_RADIUS_M, rad(azimuth)];
  const sine = Math.sin(latitude) * Math.cos(angle) + Math.cos(latitude) * Math.sin(angle) * Math.cos(direction);
  const east = Math.sin(direction) * Math.sin(angle) * Math.cos(latitude);
  const turn = Math.atan2(east, Math.cos(angle) - Math.sin(latitude) * sine);
  return [deg(Math.asin(Math.max(-1, Math.min(1, sine)))), lon + deg(turn)]; // on the same side of the date line
}

export function distanceM([lat, lon], [lat2, lon2]) {
  const [up, across] = [Math.sin(rad(lat2 - lat) / 2), Math.sin(rad(lon2 - lon) / 2)];
  const half = up ** 2 + Math.cos(rad(lat)) * Math.cos(rad(lat2)) * across ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(half)));
}

// Azimuths from one to another, clockwise, in steps of at most two degrees.
export function azimuths(from, to) {
  const steps = Math.max(1, Math.ceil((to - from) / 2));
  return Array.from({length: steps + 1}, (_, i) => from + ((to - from) * i) / steps);
}

// The corners of a wedge; of one all round those of a circle.
export function wedge(place, from, to, radiusM) {
  const arc = azimuths(from, to).map((azimuth) => destination(place, azimuth, radiusM));
  return to - from >= 360 ? arc : [place, ...arc];
}

// `along` and `across`: half axes, m; `azimuth`: of the longer one.
export function ellipse(place, along, across, azimuth) {
  return azimuths(0, 360).map((turn) => {
    const [forward, side] = [along * Math.cos(rad(turn)), across * Math.sin(rad(turn))];
    return destination(place, azimuth + deg(Math.atan2(side, forward)), Math.hypot(forward, side));
  });
}

const POINTS = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
export const compass = (azimuth) => POINTS[Math.round(azimuth / 45) % 8];
export const metres = (m) => (m < 10_000 ? `${Math.round(m)} m` : `${(m / 1000).toFixed(1)} km`);
