// What the pipeline's own words mean, for people who did not build it.

// What happens to a frame in each stage.
export const STAGES = {
  decode: "from its arrival until it is decoded",
  transport: "on its way between processes and hosts",
  wait: "waits for its turn while other frames are processed",
  inference: "the network processes it, and motion candidates are computed",
  mask: "what they found becomes boxes with scores",
  track: "boxes are linked to those of earlier frames",
  alert: "it is decided whether a track is alerted",
  sink: "until the alert is stored",
};

// Why frames are not processed, or a camera is blind.
export const CAUSES = {
  offline: "no connection to the camera",
  overload: "more frames come than this host can process",
  corrupt: "parts of the video are lost on the way",
  failed: "processing failed, or its process ended",
  frozen: "the image does not change",
  saturated: "the image is black or overexposed",
  tampered: "the view changed abruptly, or was covered",
};
