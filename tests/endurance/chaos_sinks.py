"""Faults of what the program delivers to: servers that go away, are killed, fail or hang while events happen."""

import time

from support.mosquitto import MOSQUITTO

from endurance.chaos_installed import has_mail, has_middleware, has_tak
from endurance.chaos_target import HOLD_S, Target, changed


def webhook_gone(target: Target) -> None:
    """Take the webhook's receiver away."""
    target.sinks.webhook.go()
    changed(target)
    target.sinks.webhook.come()


def webhook_fails(target: Target) -> None:
    """Let the webhook's receiver answer with errors, or not at all."""
    target.sinks.webhook.answers.extend(target.rng.choices([500, 503, "hang", "break"], k=4))
    changed(target)


def broker_killed(target: Target) -> None:
    """Kill the MQTT broker."""
    assert target.sinks.broker is not None
    target.sinks.broker.kill()
    changed(target)
    target.sinks.broker.start()


def mail_gone(target: Target) -> None:
    """Take the mail server away."""
    assert target.sinks.mail is not None
    target.sinks.mail.go()
    changed(target)
    target.sinks.mail.come()


def mail_hangs(target: Target) -> None:
    """Let the mail server take mails and say nothing."""
    assert target.sinks.mail is not None
    target.sinks.mail.mailbox.hangs = True
    changed(target)
    time.sleep(HOLD_S["stopped"])
    target.sinks.mail.mailbox.hangs = False


def tak_killed(target: Target) -> None:
    """Kill the TAK server."""
    assert target.sinks.tak is not None
    target.sinks.tak.kill()
    changed(target)
    target.sinks.tak.start()


def tak_hangs(target: Target) -> None:
    """Stop the TAK server, which keeps its connections, and kill it half of the time before it goes on."""
    assert target.sinks.tak is not None
    target.sinks.tak.hang()
    changed(target)
    time.sleep(HOLD_S["stopped"])
    if target.rng.random() < 0.5:
        target.sinks.tak.kill()
        target.sinks.tak.start()
    else:
        target.sinks.tak.go_on()


def middleware_killed(target: Target) -> None:
    """Kill the SAPIENT middleware."""
    assert target.sinks.middleware is not None
    target.sinks.middleware.kill()
    changed(target)
    target.sinks.middleware.start()


def middleware_hangs(target: Target) -> None:
    """Let the SAPIENT middleware read nothing, and kill it half of the time before it goes on."""
    assert target.sinks.middleware is not None
    target.sinks.middleware.is_deaf = True
    changed(target)
    time.sleep(HOLD_S["stopped"])
    if target.rng.random() < 0.5:
        target.sinks.middleware.kill()
        target.sinks.middleware.start()
    target.sinks.middleware.is_deaf = False


SINK_FAULTS = (
    webhook_gone,
    webhook_fails,
    broker_killed,
    mail_gone,
    mail_hangs,
    tak_killed,
    tak_hangs,
    middleware_killed,
    middleware_hangs,
)


def unavailable() -> dict[str, str]:
    """Return the faults that are not possible here, with the reason."""
    missing: dict[str, str] = {}
    if MOSQUITTO is None:
        missing["broker_killed"] = "needs mosquitto"
    if not has_mail():
        missing |= dict.fromkeys(("mail_gone", "mail_hangs"), "needs dasnet[notify] and aiosmtpd")
    if not has_tak():
        missing |= dict.fromkeys(("tak_killed", "tak_hangs"), "needs dasnet[cot] and taky")
    if not has_middleware():
        missing |= dict.fromkeys(("middleware_killed", "middleware_hangs"), "needs dasnet[sapient]")
    return missing
