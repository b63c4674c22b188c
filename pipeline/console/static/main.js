// The main page: connects the event stream to the wall and the lists.

import {Alerts, showEvents, showTracks} from "./lists.js";
import {connect} from "./top.js";
import {Wall} from "./wall.js";

const wall = new Wall(document.getElementById("wall"));
const alerts = new Alerts((camera) => wall.enlarge(camera));

connect(
  {
    site: (site) => wall.setCameras(site.cameras),
    frame: (update) => wall.receive(update),
    alerts: (list) => alerts.receive(list),
    events: showEvents,
    tracks: showTracks,
  },
  (isLinked) => wall.setLinked(isLinked),
);
