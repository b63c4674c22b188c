// The history page: alerts by filter and page, a time line of a day, and exports.  The address holds the filters.

import {SEVERITIES, VERDICTS, alertUrl, isWaiting, numbers, span} from "./alert.js";
import {request} from "./request.js";
import {CAUSES, drawTimeline, spellText} from "./timeline.js";
import {colour, make, name, timeElement} from "./text.js";
import {connect} from "./top.js";

const byId = (id) => document.getElementById(id);
const PAGE = 50;
const LABELS = ["uav", "unknown", "bird", "airplane", "helicopter"];
const TIMES = ["since", "before"];
const form = byId("filters");
let cursors = []; // the last alert of each page before this one
let asked = 0; // answers to older requests are ignored

// The query of the filters, without the page.
function query() {
  const found = new URLSearchParams();
  for (const [key, value] of new FormData(form)) {
    if (value) found.set(key, TIMES.includes(key) ? new Date(value).toISOString() : value);
  }
  return found;
}

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

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function showPage() {
  const number = ++asked;
  const filters = query();
  const page = new URLSearchParams(filters);
  page.set("limit", PAGE + 1);
  if (cursors.length) page.set("after", cursors.at(-1));
  byId("csv").href = `/api/v1/alerts.csv?${filters}`;
  byId("json").href = `/api/v1/alerts.json?${filters}`;
  try {
    const {alerts} = await request(`/alerts?${page}`);
    if (number !== asked) return;
    showProblem("");
    showAlerts(alerts);
  } catch (error) {
    if (number === asked) showProblem(error.message);
  }
}

function showAlerts(alerts) {
  const shown = alerts.slice(0, PAGE);
  byId("found").replaceChildren(...shown.map(row));
  byId("found").dataset.last = shown.at(-1)?.id ?? "";
  byId("nothing").hidden = shown.length > 0;
  byId("nothing").textContent = "No such alerts.";
  byId("range").textContent = shown.length ? `${cursors.length * PAGE + 1} to ${cursors.length * PAGE + shown.length}` : "";
  byId("older").disabled = alerts.length <= PAGE;
  byId("newer").disabled = byId("newest").disabled = !cursors.length;
}

function row(alert) {
  const target = make("a", {href: alertUrl(alert.id)}, make("i", {className: "dot"}), `${name(alert.label)} ${numbers(alert)}`);
  const verdict = alert.verdict === null ? (isWaiting(alert) ? "Not acknowledged" : "") : VERDICTS[alert.verdict];
  const made = make(
    "tr",
    {data: {key: alert.id, severity: alert.highest_severity, waiting: isWaiting(alert)}},
    make("td", {}, timeElement(alert.opened_utc_ns)),
    make("td", {}, alert.camera),
    make("td", {}, target),
    make("td", {}, SEVERITIES[alert.highest_severity]),
    make("td", {}, verdict),
    make("td", {className: "note-text", title: alert.note ?? ""}, alert.note ?? ""),
    make("td", {className: "number"}, alert.state === "active" ? "active" : span(alert).replace("lasted ", "")),
  );
  made.style.setProperty("--label", colour(alert.highest_label));
  made.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !getSelection().toString()) location.assign(alertUrl(alert.id));
  });
  return made;
}

async function showTimeline() {
  const before = query().get("before");
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
    showProblem(error.message);
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

function filtersChanged() {
  cursors = [];
  const found = query().toString();
  history.replaceState(null, "", found ? `?${found}` : location.pathname);
  showPage();
}

function turn(change) {
  change();
  showPage().then(() => byId("found").closest(".scroll").scrollTo(0, 0));
}

for (const [key, values, named] of [
  ["label", LABELS, name],
  ["severity", Object.keys(SEVERITIES), (value) => SEVERITIES[value]],
  ["verdict", ["none", ...Object.keys(VERDICTS)], (value) => VERDICTS[value] ?? "None"],
]) offer(form.elements[key], values, named);
readAddress();
form.addEventListener("change", (event) => {
  filtersChanged();
  if (event.target.name === "before") showTimeline();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { filtersChanged(); showTimeline(); })); // the fields are empty only then
byId("older").addEventListener("click", () => turn(() => cursors.push(byId("found").dataset.last)));
byId("newer").addEventListener("click", () => turn(() => cursors.pop()));
byId("newest").addEventListener("click", () => turn(() => (cursors = [])));
window.addEventListener("popstate", () => { readAddress(); showPage(); showTimeline(); });
new ResizeObserver(() => byId("timeline").redraw?.()).observe(byId("timeline"));

const timer = setInterval(() => query().get("before") || document.hidden || showTimeline(), 60_000);
window.addEventListener("pagehide", () => clearInterval(timer));
let alerts = ""; // of the first page, which follows what happens
connect({
  alerts: (list) => {
    const now = JSON.stringify(list);
    if (now !== alerts && alerts && !cursors.length) showPage();
    alerts = now;
  },
});
showPage();
showTimeline();
