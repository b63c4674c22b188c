// What lies under the cameras on the map: the user's tiles and image, which this console serves, and a grid.

/* global L, pmtiles, protomapsL */

import {destination, metres} from "./geodesy.js";
import {isNight} from "./theme.js";
import {load} from "./vendor.js";

const TILES = "/api/v1/map/tiles.pmtiles";
const IMAGE = "/api/v1/map/image";
const MVT = 1; // a tile type of PMTiles
const MIN_STEP_PX = 70; // of the grid
const MAX_LINES = 80;

// Lines at round distances from a point.
export class Grid {
  #lines;

  constructor(map, origin, said) {
    this.map = map;
    this.origin = origin;
    this.said = said;
    map.createPane("grid").style.zIndex = 250;
    this.#lines = L.layerGroup([], {pane: "grid"}).addTo(map);
    map.on("moveend", () => this.draw());
    this.draw();
  }

  draw() {
    const {map, origin} = this;
    const bounds = map.getBounds();
    const across = map.distance(bounds.getSouthWest(), bounds.getSouthEast());
    const step = rounded((across / map.getSize().x) * MIN_STEP_PX);
    const [lat] = destination(origin, 0, step);
    const [, lon] = destination(origin, 90, step);
    const rows = multiples(origin[0], lat - origin[0], bounds.getSouth(), bounds.getNorth());
    const columns = multiples(origin[1], lon - origin[1], bounds.getWest(), bounds.getEast());
    const line = (from, to) => L.polyline([from, to], {className: "grid-line", interactive: false, pane: "grid"});
    this.#lines.clearLayers();
    for (const at of rows) this.#lines.addLayer(line([at, bounds.getWest()], [at, bounds.getEast()]));
    for (const at of columns) this.#lines.addLayer(line([bounds.getSouth(), at], [bounds.getNorth(), at]));
    this.said(`Grid ${metres(step)}`);
  }
}

// 1, 2 or 5 times a power of ten, at least `least`.
function rounded(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least);
}

function multiples(origin, step, from, to) {
  const first = Math.ceil((from - origin) / step);
  const last = Math.min(Math.floor((to - origin) / step), first + MAX_LINES);
  return Array.from({length: Math.max(0, last - first + 1)}, (_, i) => origin + (first + i) * step);
}

// A file that is not there, or none of its kind, is an Error with a message to display.
export async function addTiles(map) {
  await load("pmtiles.js");
  const archive = new pmtiles.PMTiles(TILES);
  let header;
  try {
    header = await archive.getHeader();
  } catch {
    throw new Error("The map's PMTiles file (console.map.pmtiles) cannot be read.");
  }
  const zooms = {maxNativeZoom: header.maxZoom, minNativeZoom: header.minZoom, maxZoom: map.getMaxZoom()};
  if (header.tileType !== MVT) return imageTiles(archive, zooms).addTo(map);
  await load("protomaps-leaflet.js");
  const layer = () =>
    protomapsL.leafletLayer({url: TILES, flavor: isNight() ? "dark" : "light", maxDataZoom: header.maxZoom, attribution: "", maxZoom: map.getMaxZoom()});
  let shown = layer().addTo(map);
  addEventListener("themechange", () => {
    shown.remove();
    shown = layer().addTo(map);
  });
}

// Tiles that are images, on canvases: addresses of blobs are none that the console's pages may show.
function imageTiles(archive, zooms) {
  const Tiles = L.GridLayer.extend({
    createTile({x, y, z}, done) {
      const tile = L.DomUtil.create("canvas", "leaflet-tile");
      paint(tile, archive, z, x, y).then(() => done(null, tile), (error) => done(error, tile));
      return tile;
    },
  });
  return new Tiles(zooms);
}

async function paint(tile, archive, z, x, y) {
  const found = await archive.getZxy(z, x, y);
  if (!found) return;
  const image = await createImageBitmap(new Blob([found.data]));
  [tile.width, tile.height] = [image.width, image.height];
  tile.getContext("2d").drawImage(image, 0, 0);
  image.close();
}

// An image by three of its corners: it may be turned.
export function addImage(map, corners) {
  const Image = L.Layer.extend({
    onAdd() {
      this.image = L.DomUtil.create("img", "map-image leaflet-zoom-hide");
      this.image.alt = "";
      this.getPane("image").append(this.image);
      this.image.onload = () => this.place();
      this.image.src = IMAGE;
      map.on("zoomend viewreset", this.place, this);
    },
    place() {
      const {naturalWidth: width, naturalHeight: height} = this.image;
      if (!width) return;
      const [corner, right, low] = corners.map((each) => map.latLngToLayerPoint(each));
      const [across, down] = [right.subtract(corner).divideBy(width), low.subtract(corner).divideBy(height)];
      this.image.style.transform = `matrix(${across.x}, ${across.y}, ${down.x}, ${down.y}, ${corner.x}, ${corner.y})`;
    },
  });
  map.createPane("image").style.zIndex = 220;
  const layer = new Image({pane: "image"}).addTo(map);
  return new Promise((resolve, reject) => {
    layer.image.addEventListener("load", resolve);
    layer.image.addEventListener("error", () => reject(new Error("The map's image (console.map.image.file) cannot be read.")));
  });
}
