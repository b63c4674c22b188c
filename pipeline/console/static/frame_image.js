// The image of a recent frame.

const TIMEOUT_MS = 5000;

export async function fetchImage(frame) {
  const session = encodeURIComponent(frame.session);
  const url = `/api/v1/cameras/${encodeURIComponent(frame.camera)}/frames/${frame.seq}.jpg?session=${session}`;
  try {
    const response = await fetch(url, {signal: AbortSignal.timeout(TIMEOUT_MS)});
    return response.ok ? await createImageBitmap(await response.blob()) : null;
  } catch {
    return null; // expired, interrupted or not a JPEG: the next one will follow
  }
}
