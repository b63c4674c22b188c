// The state of a camera in words.

import {CAUSES} from "./meanings.js";

const PARTLY = 0.05; // of the last seconds, from which a camera counts as partly blind

// The mood and text of a camera's state.
export function mode(status) {
  if (!status || status.state === "starting") return ["wait", "Starting"];
  if (status.state === "down") return ["bad", "Down"];
  if (status.state === "blind") return ["bad", `Blind${status.cause ? ` · ${status.cause}` : ""}`];
  if (status.blind_share >= PARTLY) {
    return ["late", `Blind ${Math.round(status.blind_share * 100)} %${status.cause ? ` · ${status.cause}` : ""}`];
  }
  return ["good", "Processing"];
}

// Why a camera is blind, for people who do not know the cause's name; empty where it is not.
export function meaning(status) {
  const isWorse = ["late", "bad"].includes(mode(status)[0]);
  const text = (isWorse && CAUSES[status.cause]) || "";
  return text && `${text[0].toUpperCase()}${text.slice(1)}`;
}
