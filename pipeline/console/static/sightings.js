// What the map shows now: cameras with their state, and what each sees, from the live topics.

import {isOpen} from "./alert.js";
import {clock} from "./clock.js";

const OLD_S = 5; // what an older frame shows is not there any more
const SHOWN = new Set(["confirmed", "coasting"]);

export class Sightings {
  #frames = new Map(); // the newest of each camera
  #alertOf = new Map(); // the open alert of a track, by its ULID
  #statuses = new Map(); // of cameras
  isLinked = false;

  frame({frame}) {
    this.#frames.set(frame.camera, frame);
  }

  alerts(alerts) {
    const open = alerts.filter(isOpen).filter((alert) => alert.state === "active");
    this.#alertOf = new Map(open.flatMap((alert) => alert.tracks.map(({ulid}) => [ulid, alert])));
  }

  site({cameras}) {
    this.#statuses = new Map(cameras.map((camera) => [camera.id, camera]));
    for (const camera of this.#frames.keys()) if (!this.#statuses.has(camera)) this.#frames.delete(camera);
  }

  // `cameras`: of the map.  Returns each with its status, newest frame (null: there is none, or it is old) and tracks.
  now(cameras) {
    return cameras.map((camera) => {
      const frame = this.#frames.get(camera.id);
      const isFresh = this.isLinked && frame && clock.ageS(frame.received_utc_ns) <= OLD_S;
      const tracks = isFresh ? frame.tracks.filter((track) => SHOWN.has(track.state)) : [];
      const alerted = tracks.map((track) => ({...track, alert: this.#alertOf.get(track.ulid) ?? null}));
      return {...camera, status: this.#statuses.get(camera.id) ?? null, frame: isFresh ? frame : null, tracks: alerted};
    });
  }
}

// Of the positions of a target that several cameras see, the most certain one.
export function positions(cameras) {
  const best = new Map();
  for (const track of cameras.flatMap((camera) => camera.tracks).filter((each) => each.position)) {
    const key = track.alert?.id ?? track.ulid;
    const known = best.get(key);
    if (!known || track.position.horizontal_sigma_m < known.position.horizontal_sigma_m) best.set(key, track);
  }
  return [...best.values()];
}
