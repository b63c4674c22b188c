// The palette's colours on canvases: what lies on an image has the colours of the night, by day too.

const probe = document.createElement("i");
probe.className = "on-image unseen";
const known = new Map();

// `value`: of CSS, such as `var(--uav)`.  Returns it as canvases take it.
export function imageColour(value) {
  if (!known.has(value)) {
    document.body.append(probe);
    probe.style.color = value;
    known.set(value, getComputedStyle(probe).color);
    probe.remove();
  }
  return known.get(value);
}
