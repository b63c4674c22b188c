// JSON requests to the API; failures are Errors with a message to display.

export async function request(path, {method = "GET", body, timeoutMs = 10_000} = {}) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, {method, body, signal: AbortSignal.timeout(timeoutMs)});
  } catch {
    throw new Error("dasnet does not respond");
  }
  if (response.status === 401 && location.pathname !== "/login") location.assign("/login");
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    // reported below by its status
  }
  if (!response.ok) throw new Error(answer?.error ?? `dasnet responds with status ${response.status}`);
  return answer;
}
