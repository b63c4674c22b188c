// The audit log: what people did, by time, user and alert, in pages.

import {VERDICTS, alertUrl} from "./alert.js";
import {PagedList} from "./paged_list.js";
import {make, timeElement} from "./text.js";
import {connect} from "./top.js";

const ACTIONS = {
  log_in: "Logged in",
  log_in_failed: "Wrong password",
  log_out: "Logged out",
  acknowledge: "Acknowledged",
  review: "Gave a verdict",
  reopen: "Reopened",
  pin: "Pinned",
  unpin: "Unpinned",
  arm: "Armed the site",
  disarm: "Disarmed the site",
  configure: "Changed the configuration",
  trial: "Tried a file",
};

function cells({time_utc_ns: time, user, address, kind, camera, alert, detail}) {
  const link = alert ? make("a", {href: alertUrl(alert)}, make("code", {}, alert)) : "";
  const shown = [timeElement(time), user || "–", address || "this host", ACTIONS[kind] ?? kind, camera ?? "", link, verdict(detail ?? "")];
  return shown.map((cell, i) => make("td", {className: i === 6 ? "note-text" : "", title: i === 6 ? detail ?? "" : ""}, cell));
}

// A verdict is stored as `bird: its note`.
function verdict(detail) {
  const [first, ...rest] = detail.split(": ");
  return [VERDICTS[first] ?? first, ...rest].join(": ");
}

const list = new PagedList({path: "audit", key: "actions"}, cells);
connect();
list.show();
setInterval(() => list.isFirstPage && !document.hidden && list.show(), 5_000);
