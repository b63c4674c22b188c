// The history page: alerts by filter and page, a time line of a day, and exports.  The address holds the filters.

import {SEVERITIES, VERDICTS, alertUrl, isWaiting, numbers, span} from "./alert.js";
import {PagedList, TIMES} from "./paged_list.js";
import {request} from "./request.js";
import {CAUSES, drawTimeline, spellText} from "./timeline.js";
import {colour, make, name, timeElement} from "./text.js";
import {connect} from "./top.js";

const byId = (id) => document.getElementById(id);
const LABELS = ["uav", "unknown", "bird", "airplane", "helicopter"];
const form = byId("filters");

// Sets the fields to the address.
function readAddress() {
  const given = new URLSearchParams(location.search);
  for (const field of form.elements) {
    const value = given.get(field.name) ?? "";
    if (!field.name) continue;
    if (field.type === "checkbox") field.checked = value === "true";
    else if (TIMES.includes(field.name)) field.value = localTime(value);
    else choose(field, value);
  }
}

function localTime(value) {
  const time = new Date(value);
  if (!value || Number.isNaN(time.getTime())) return "";
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

// What is not among the choices yet, such as a camera that the site no longer has, is added.
function choose(field, value) {
  offer(field, value ? [value] : []);
  field.value = value;
}

function offer(field, values, named = (value) => value) {
  const known = new Set([...field.options].map((option) => option.value));
  field.append(...values.filter((value) => !known.has(value)).map((value) => make("option", {value}, named(value))));
}

function cells(alert, row) {
  const target = make("a", {href: alertUrl(alert.id)}, make("i", {className: "dot"}), `${name(alert.label)} ${numbers(alert)}`);
  const verdict = alert.verdict === null ? (isWaiting(alert) ? "Not acknowledged" : "") : VERDICTS[alert.verdict];
  Object.assign(row.dataset, {severity: alert.highest_severity, waiting: isWaiting(alert)});
  row.style.setProperty("--label", colour(alert.highest_label));
  return [
    make("td", {}, timeElement(alert.opened_utc_ns)),
    make("td", {}, alert.camera),
    make("td", {}, target),
    make("td", {}, SEVERITIES[alert.highest_severity]),
    make("td", {}, verdict),
    make("td", {className: "note-text", title: alert.note ?? ""}, alert.note ?? ""),
    make("td", {className: "number"}, alert.state === "active" ? "active" : span(alert).replace("lasted ", "")),
  ];
}

byId("found").addEventListener("click", ({target}) => {
  const row = target.closest("tr");
  if (row && !target.closest("a") && !getSelection().toString()) location.assign(alertUrl(row.dataset.key));
});

async function showTimeline() {
  const before = list.filters().get("before");
  try {
    const timeline = await request(`/timeline${before ? `?before=${encodeURIComponent(before)}` : ""}`);
    offer(form.elements.camera, timeline.cameras.map((line) => line.camera));
    drawTimeline(byId("timeline"), timeline);
    showCauses(timeline);
    const spells = timeline.cameras.flatMap(({camera, spells}) => spells.map((spell) => ({camera, spell})));
    spells.sort((a, b) => b.spell.since_utc_ns - a.spell.since_utc_ns);
    byId("spells").replaceChildren(
      ...spells.map(({camera, spell}) => make("li", {data: {camera}}, make("b", {}, camera), ` ${spellText(spell)}`)),
    );
  } catch (error) {
    list.showProblem(error.message);
  }
}

// The causes that the time line shows.
function showCauses({cameras}) {
  const shown = new Set(cameras.flatMap(({blind}) => blind.map(({cause}) => cause)));
  byId("causes").replaceChildren(...[...shown].map((cause) => {
    const key = make("span", {className: "key blind"}, `Blind: ${cause}`);
    key.style.setProperty("--cause", CAUSES[cause]);
    return key;
  }));
}

function showAddress() {
  const found = list.filters().toString();
  history.replaceState(null, "", found ? `?${found}` : location.pathname);
  showExports();
}

function showExports() {
  for (const kind of ["csv", "json"]) byId(kind).href = `/api/v1/alerts.${kind}?${list.filters()}`;
}

const list = new PagedList({path: "alerts", key: "alerts"}, cells, (event) => {
  showAddress();
  if (event.type === "reset" || event.target.name === "before") showTimeline();
});
for (const [key, values, named] of [
  ["label", LABELS, name],
  ["severity", Object.keys(SEVERITIES), (value) => SEVERITIES[value]],
  ["verdict", ["none", ...Object.keys(VERDICTS)], (value) => VERDICTS[value] ?? "None"],
]) offer(form.elements[key], values, named);
readAddress();
window.addEventListener("popstate", () => { readAddress(); showExports(); list.show(); showTimeline(); });
new ResizeObserver(() => byId("timeline").redraw?.()).observe(byId("timeline"));

const timer = setInterval(() => list.filters().get("before") || document.hidden || showTimeline(), 60_000);
window.addEventListener("pagehide", () => clearInterval(timer));
let alerts = ""; // of the first page, which follows what happens
connect({
  alerts: (current) => {
    const now = JSON.stringify(current);
    if (now !== alerts && alerts && list.isFirstPage) list.show();
    alerts = now;
  },
});
showExports();
list.show();
showTimeline();
