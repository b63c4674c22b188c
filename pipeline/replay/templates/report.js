"use strict";
// A click on a track or in a time line moves the player of its recording there; the link would open the video instead.
const player = (number) => document.querySelector(`video[data-input="${number}"]`);
const seek = (number, time) => {
  const video = player(number);
  if (!video) return false;
  video.preload = "auto";
  video.currentTime = Math.max(0, time);
  video.scrollIntoView({ block: "nearest" });
  return true;
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-at]");
  if (link) {
    if (seek(link.dataset.input, Number(link.dataset.at))) event.preventDefault();
    return;
  }
  const line = event.target.closest("svg.time[data-input]");
  if (!line) return;
  const box = line.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  seek(line.dataset.input, Number(line.dataset.start) + share * Number(line.dataset.span));
});
// A line in the time line follows the player.
for (const video of document.querySelectorAll("video[data-input]")) {
  const line = document.querySelector(`svg.time[data-input="${video.dataset.input}"]`);
  const now = line && line.querySelector(".now");
  if (!now) continue;
  video.addEventListener("timeupdate", () => {
    const share = (video.currentTime - Number(line.dataset.start)) / Number(line.dataset.span);
    now.setAttribute("x", `${Math.min(100, Math.max(0, 100 * share)).toFixed(2)}%`);
    now.removeAttribute("hidden");
  });
}
