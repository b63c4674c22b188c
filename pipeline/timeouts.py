"""Time limits that depend on each other across the pipeline: each has one name here, with what it must exceed.

    capture        opening, reading and back-off of a camera  <  CAPTURE_WATCHDOG_TIMEOUT_S
    credit flow    RESULT_SEND_TIMEOUT_S  <  BATCH_DEADLINE_S  <  OUTCOME_TIMEOUT_S
                   BATCH_DEADLINE_S  <  DEVICE_HANG_TIMEOUT_S
    supervision    HEARTBEAT_PERIOD_S  <<  HEARTBEAT_TIMEOUT_S  <  FIRST_HEARTBEAT_TIMEOUT_S  <  RELOAD_TIMEOUT_S
    shutdown       TRACKING_DRAIN_TIMEOUTS_S together, and CLIP_DRAIN_TIMEOUT_S,
                   <  WORKER_EXIT_TIMEOUT_S  <  WORKER_STOP_TIMEOUT_S
    display        HEARTBEAT_PERIOD_S  <  CAMERA_SILENCE_TIMEOUT_S  <  WORKER_SILENCE_TIMEOUT_S
                   <  HEARTBEAT_TIMEOUT_S, and WORKER_SILENCE_TIMEOUT_S  <  CAPTURE_SILENCE_TIMEOUT_S

`tests/unit/runtime/test_timeouts.py` holds these relations.  Limits that only one module knows stay in that module.
Pure: every package may import this one.
"""

# Supervision: a worker reports once a period; the supervisor kills one that hangs.
HEARTBEAT_PERIOD_S = 1.0
HEARTBEAT_TIMEOUT_S = 15.0  # several heartbeats may be lost, or late on a busy host
FIRST_HEARTBEAT_TIMEOUT_S = 90.0  # importing torch and loading a checkpoint on a slow disk
RELOAD_TIMEOUT_S = 150.0  # `dasnet reload` waits for a segmentation worker that may just be starting

# A capture worker stops its heartbeats without progress: longer than any pause or time limit of a camera's connection.
CAPTURE_WATCHDOG_TIMEOUT_S = 60.0
RECORDING_DRAIN_TIMEOUT_S = 60.0  # for the outcomes of a recording's last frames

# Credit flow: the segmentation worker fails a batch before the cameras give up its frames.
CREDIT_REQUEST_PERIOD_S = 0.5  # credit is requested again, for the segmentation worker may have been replaced
RESULT_SEND_TIMEOUT_S = 1.0  # the track worker may be slow for this long before results are counted as failed
BATCH_DEADLINE_S = 8.0
OUTCOME_TIMEOUT_S = 10.0  # a frame without an outcome is counted as failed
DEVICE_HANG_TIMEOUT_S = 30.0  # a device that is still busy with one batch is lost; the worker is replaced

# Hosts: an edge host asks the inference host for its clock, and warns when no reply comes.
CLOCK_REQUEST_PERIOD_S = 1.0
INFERENCE_HOST_TIMEOUT_S = 5.0

# Display and readiness.
CAMERA_SILENCE_TIMEOUT_S = 3.0  # the tracks of a camera without results are closed
FRAME_PROGRESS_TIMEOUT_S = 5.0  # a worker whose last frame is older is not ready
WORKER_SILENCE_TIMEOUT_S = 5.0  # a worker without a heartbeat counts as down, before it is killed
CAPTURE_SILENCE_TIMEOUT_S = 6.0  # a camera whose ledger is older counts as down

# Shutdown: workers end by themselves before the supervisor, or the next run, kills them.
CLIP_DRAIN_TIMEOUT_S = 3.0  # for a camera's clips in progress
TRACKING_DRAIN_TIMEOUTS_S = {"snapshots": 1.0, "store": 3.0, "outbox": 2.0, "evidence": 0.5, "hosts": 0.4}
WORKER_EXIT_TIMEOUT_S = 7.0  # a worker that has not ended dumps its stacks and exits, also without a supervisor
WORKER_STOP_TIMEOUT_S = 8.0  # from SIGTERM until the supervisor kills a worker, or the next run an orphan
WORKER_KILL_TIMEOUT_S = 5.0  # for the kernel to end a killed orphan
