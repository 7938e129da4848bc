// Requests to the program on this machine. The session's key goes along in a header, which other pages cannot send.

import { $, el, say } from "./dom.js";

const PLACE = "mipp-key";
let key = sessionStorage.getItem(PLACE) || "";

/** Open a session with the one-time token of the address, or go on with the tab's own. */
export async function openSession() {
  const token = new URLSearchParams(location.hash.slice(1)).get("open");
  if (token) {
    history.replaceState(null, "", location.pathname); // not in the history, nor sent anywhere
    const reply = await fetch("/api/session", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
    });
    if (reply.ok) {
      key = (await reply.json()).key;
      sessionStorage.setItem(PLACE, key);
    } else if (!key) throw new Error((await reply.json()).error);
  }
  if (!key) throw new Error("Open this page by the link that mipp app prints; each link opens one page.");
}

export function forgetSession() {
  key = "";
  sessionStorage.removeItem(PLACE);
}

async function request(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...options.headers, "X-Mipp-Key": key } });
  } catch {
    throw new Error("The program on this machine does not answer; is it still running?");
  }
  if (!reply.ok) {
    let text = `refused (${reply.status})`;
    try { text = (await reply.json()).error; } catch { /* no sentence came */ }
    throw new Error(text);
  }
  return reply;
}

export const get = async (path) => (await request(path)).json();
export const remove = async (path) => (await request(path, { method: "DELETE" })).json();

export async function post(path, body = {}) {
  const raw = body instanceof Blob;
  const headers = { "Content-Type": raw ? "application/octet-stream" : "application/json" };
  return (await request(path, { method: "POST", headers, body: raw ? body : JSON.stringify(body) })).json();
}

const urls = new Map();

/** Address of a picture; kept while `owner`, an element, is on the page. */
export async function picture(path, owner) {
  return kept(await (await request(path)).blob(), owner);
}

function kept(blob, owner) {
  const url = URL.createObjectURL(blob);
  if (!urls.has(owner)) urls.set(owner, []);
  urls.get(owner).push(url);
  return url;
}

/** Address of a picture that came as text. */
export function pictureOf(text, owner) {
  return kept(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "image/jpeg" }), owner);
}

/** Addresses of pictures that came in one piece (before each its number and length), by number. */
export async function pictures(path, owner) {
  const all = await (await request(path)).arrayBuffer(), view = new DataView(all), found = new Map();
  for (let at = 0; at + 8 <= all.byteLength;) {
    const length = view.getUint32(at + 4);
    found.set(view.getUint32(at), kept(new Blob([all.slice(at + 8, at + 8 + length)], { type: "image/jpeg" }), owner));
    at += 8 + length;
  }
  return found;
}

/** Let go of the pictures of an element. */
export function release(owner) {
  for (const url of urls.get(owner) || []) URL.revokeObjectURL(url);
  urls.delete(owner);
}

export async function save(path, name) {
  const url = URL.createObjectURL(await (await request(path)).blob());
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const pause = (ms) => new Promise((go) => setTimeout(go, ms));

/**
 * Follow a piece of work to its end: shows it at once, with a button to cancel it; gives its result.
 * `part(result)` is called when some of it is there already. A failure is thrown as one sentence.
 */
export async function work(label, begin, part = null) {
  const bar = el("progress", { "aria-label": label });
  const text = el("span", {}, `${label} …`);
  let id = null, wanted = false;
  const cancel = el("button", { type: "button", click: async () => {
    wanted = true;
    cancel.disabled = true;
    if (id !== null) await post(`/api/jobs/${id}/cancel`).catch(() => {});
  } }, "Cancel");
  const line = el("div", { class: "job" }, text, bar, cancel);
  $("jobs").append(line);
  try {
    let job = await begin();
    id = job.id;
    if (wanted) await post(`/api/jobs/${id}/cancel`);
    let shown = false;
    for (let wait = 20; ; wait = Math.min(wait * 1.1, 300)) {
      if (part && !shown && job.result !== null && !["failed", "cancelled"].includes(job.state)) {
        shown = true;
        await part(job.result);
      }
      if (["done", "failed", "cancelled"].includes(job.state)) break;
      const at = job.state === "waiting" ? "waits for what began before" : job.text;
      text.textContent = `${label}${at ? `: ${at}` : ""} …`;
      if (job.total) { bar.max = job.total; bar.value = job.done; }
      await pause(wait);
      job = await get(`/api/jobs/${id}`);
    }
    if (job.state === "failed") throw new Error(job.text);
    if (job.state === "cancelled") throw new Error(`${label}: ${job.text}`);
    return job;
  } finally {
    line.remove();
  }
}

/** Run an action; its failure is said in one sentence. */
export async function tried(action) {
  say("");
  try {
    return await action();
  } catch (error) {
    say(error.message, true);
    return undefined;
  }
}
