// Shows the notifications that are pushed, also while no tab of the console is open.

self.addEventListener("push", (event) => {
  const message = event.data.json();
  const shown = self.registration.showNotification(message.title, {
    body: `${new Date(message.time_utc_ns / 1e6).toLocaleString("en-GB")}. Not acknowledged.`,
    icon: "/static/icon.svg",
    tag: message.tag,
    renotify: true,
    requireInteraction: message.is_alarm,
    data: message.path,
  });
  event.waitUntil(shown);
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data));
});

async function open(path) {
  const windows = await self.clients.matchAll({type: "window", includeUncontrolled: true});
  const shown = windows.find(({url}) => new URL(url).pathname === path);
  return shown ? shown.focus() : self.clients.openWindow(path);
}

// The push service replaced the subscription.
self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(renew(event.oldSubscription)));

async function renew({options}) {
  const current = await self.registration.pushManager.subscribe(options);
  await fetch("/api/v1/push/subscribe", {method: "POST", body: JSON.stringify(current)});
}
