"""Parameters of the tracker.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackerSettings:
    """Parameters of the tracker, tuned on labelled clips.  D is a target's apparent size, sqrt(box width x height)."""

    confirm_hits: int = 4  # M
    confirm_window: int = 6  # of N frames
    steady_hits: int = 3  # at a low frame rate as many suffice, without a miss since the first, ...
    steady_s: float = 0.3  # ... that span this time: the farther apart, the less do they have a cause in common
    tentative_s: float = 0.35  # a tentative track without a detection for this long is dropped, ...
    tentative_frames: int = 3  # ... but not before it missed this many frames: the frame rate may be low
    coast_s: float = 1.0  # likewise for a confirmed track
    coast_frames: int = 3
    gate: float = 13.8  # squared Mahalanobis distance: 99.9% in two dimensions
    recovery_gate: float = 60.0  # of a confirmed track that has no detection within the gate: it, or the camera, turned
    jump_missed: int = 1  # before a plain sky a camera turns unnoticed: a track that missed no more frames ...
    jump_d: float = 5.0  # ... and has no detection may continue as far away, in D, ...
    jump_size_ratio: float = 1.5  # ... with a detection of about its size
    gate_cap: float = 0.15  # of the frame's width: no target moves farther between two detections
    size_ratio: float = 3.0  # largest ratio in size between two detections of one target
    acceleration_d_s2: float = 8.0  # process noise, in D per s^2 ...
    acceleration_time_s: float = 0.3  # ... and its correlation time
    start_speed_d_s: float = 15.0  # standard deviation of an unknown velocity, in D per s
    camera_jump_error: float = 0.5  # standard deviation of camera motion, as a share of its change since the last frame
    unknown_shift_d: float = 0.5  # likewise, of camera motion that was not measured, in D
    size_gain: float = 0.25  # exponential smoothing of the box's size
    moved_d: float = 0.1  # a track has moved when it left its first position by this many D, ...
    moved_px: float = 2.0  # ... by this many pixels, ...
    moved_width: float = 0.003  # ... and by this share of the frame's width: camera motion errors accumulate
    home_s: float = 8.0  # time constant with which that position follows: a sky of clouds drifts past what is fixed
    fixed_s: float = 1.0  # after this time it must have left it by ...
    fixed_ratio: float = 1.5  # ... this many times as much, or it is fixed
    drift_width_s: float = 0.01  # clouds drift by less than this share of the frame's width in a second; there ...
    screen_ratio: float = 2.0  # ... it must have moved on the screen by this many times as much
    evidence_s: float = 2.5  # time constant of the exponential decay of evidence
    kinematics_weight: float = 1.0  # of the motion's log-odds in the evidence for uav; 1: independent of appearance
    suppression_margin: float = 2.0  # log-odds beyond the threshold to suppress a track reported as a target
    report_margin: float = 2.0  # log-odds beyond the threshold to report a track that was suppressed
    name_log_odds: float = 3.0  # total of the class's evidence that ends the wait before a track is confirmed ...
    name_s: float = 1.5  # ... which is no longer than this
    reset_s: float = 5.0  # a larger jump of the presentation time resets the tracker
