// The main page: connects the event stream to the wall and the lists.

import {Alerts, showEvents, showTracks} from "./lists.js";
import {Push} from "./push.js";
import {connect} from "./top.js";
import {VideoWall} from "./video_wall.js";
import {Wall} from "./wall.js";

const wall = new Wall(document.getElementById("wall"));
new Push(document.getElementById("push"));
const videoWall = new VideoWall(wall);
const alerts = new Alerts((camera) => wall.enlarge(camera));
let tracks = [];
let alertOf = new Map(); // by ULID of a track
let asked = decodeURIComponent(location.hash.slice(1)); // the camera that another page asks for

function setCameras({cameras}) {
  wall.setCameras(cameras);
  videoWall.update();
  if (asked) wall.enlarge(asked);
  asked = "";
}

function receiveAlerts(list) {
  alerts.receive(list);
  alertOf = new Map(list.flatMap((alert) => alert.tracks.map(({ulid}) => [ulid, alert.id])));
  wall.setAlerts(alertOf);
  videoWall.receive(list);
  showTracks(tracks, alertOf);
}

function receiveTracks(list) {
  tracks = list;
  showTracks(tracks, alertOf);
}

connect(
  {
    site: setCameras,
    frame: (update) => wall.receive(update),
    alerts: receiveAlerts,
    events: showEvents,
    tracks: receiveTracks,
  },
  (isLinked) => wall.setLinked(isLinked),
);
