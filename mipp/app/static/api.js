// Requests to the program on this machine. The page and the program share a key that is never sent. Before each request
// the program proves that it knows the key, since another program may listen on the port of one that has ended; then
// the request is proved, and the reply.

import { $, el, say } from "./dom.js";

const PLACE = "mipp-key";
const LARGEST_BODY = 64 * 2 ** 20, LARGEST_FIELDS = 2 ** 20; // as the program's: it reads no more
const utf8 = new TextEncoder();
let shared = null; // { name, key, link }
let ended = false;
const endings = [];

/** Calls `forget(text)` when this page is over: it lets go of all it holds. */
export const onEnd = (forget) => endings.push(forget);

/** This page is over: nothing is sent any more, and everything is forgotten. */
export function end(text) {
  if (ended) return;
  ended = true;
  shared = null;
  sessionStorage.clear();
  for (const owner of [...urls.keys()]) release(owner);
  for (const forget of endings) forget(text);
}

const never = () => new Promise(() => {}); // what waits for a reply is forgotten, too
const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (bytes) => hex(await crypto.subtle.digest("SHA-256", bytes));
const hmac = (secret) =>
  crypto.subtle.importKey("raw", utf8.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
const mac = async (key, ...parts) => hex(await crypto.subtle.sign("HMAC", key, utf8.encode(parts.join("\n"))));

/** Whether `given` is the proof of these lines. */
async function proves(key, given, ...parts) {
  if (!/^[0-9a-f]{64}$/.test(given)) return false;
  const bytes = Uint8Array.from(given.match(/../g), (pair) => parseInt(pair, 16));
  return crypto.subtle.verify("HMAC", key, bytes, utf8.encode(parts.join("\n")));
}

async function share(secret, link) {
  const key = await hmac(secret);
  return { key, link, name: await mac(key, "name") };
}

/** Open a session with the one-time token of the address, or go on with the tab's own. */
export async function openSession() {
  const token = new URLSearchParams(location.hash.slice(1)).get("open"), kept = sessionStorage.getItem(PLACE);
  if (token) history.replaceState(null, "", location.pathname); // not in the history, nor sent anywhere
  if (!globalThis.crypto?.subtle) throw new Error("This browser has no WebCrypto here; open the page by its link as it is.");
  if (token) {
    shared = await share(token, true);
    const announced = await hello();
    if (announced.unknown && !kept) {
      throw new Error("This link was used already, or is not of this program; each link opens one page.");
    }
    if (!announced.unknown) {
      await sent(announced, "/api/session", "POST", {}, new Uint8Array());
      shared = await share(announced.tab, false);
      sessionStorage.setItem(PLACE, announced.tab);
      return;
    }
  }
  if (!kept) throw new Error("Open this page by the link that mipp app prints; each link opens one page.");
  shared = await share(kept, false);
}

/** Have the program prove that it knows the key; gives what the next request needs, or `unknown` if it knows no such key. */
async function hello() {
  if (ended) return never();
  const nonce = hex(crypto.getRandomValues(new Uint8Array(32))), { key, name } = shared;
  let reply = null;
  for (const wait of [100, 300, 1000, 0]) {
    try {
      reply = await fetch("/api/hello", {
        ...ALONE, signal: AbortSignal.timeout(10_000), headers: { "X-Mipp-Key": name, "X-Mipp-Nonce": nonce },
      });
      break;
    } catch {
      if (wait) await pause(wait);
    }
  }
  if (ended) return never();
  if (reply === null) return over("The program on this machine has ended, or does not answer.");
  if (shared.link && reply.status === 401) return { unknown: true };
  const told = reply.ok ? await reply.json().catch(() => ({})) : {};
  const number = String(told.nonce), once = await hmac(await mac(key, "request", nonce, number));
  if (!(await proves(once, String(told.proof), "server"))) {
    return over("Another program answers here: the one that this page is of has ended. Nothing was sent to the other.");
  }
  return { number, name, key: once, tab: shared.link ? await mac(key, "tab", nonce, number) : "" };
}

function over(text) {
  end(text);
  return never();
}

const ALONE = { cache: "no-store", credentials: "omit", mode: "same-origin", redirect: "error" };

/** Send one request that the program has been announced; gives status and body of its reply, which is proved. */
async function sent(announced, path, method, headers, body) {
  const { key, name, number } = announced, { pathname, search } = new URL(path, location);
  const digest = await sha256(body);
  const proof = await mac(key, "page", method, pathname + search, digest);
  if (ended) return never();
  let reply, bytes;
  try {
    reply = await fetch(pathname + search, { ...ALONE, method, body: method === "POST" ? body : undefined, headers: {
      ...headers, "X-Mipp-Key": name, "X-Mipp-Nonce": number, "X-Mipp-Body": digest, "X-Mipp-Mac": proof } });
    bytes = await reply.arrayBuffer();
  } catch {
    throw new Error("The program on this machine does not answer; is it still running?");
  }
  const given = reply.headers.get("X-Mipp-Proof") || "";
  if (!(await proves(key, given, "reply", String(reply.status), await sha256(bytes)))) {
    return over("A reply is not of the program that this page is of. This page stops.");
  }
  if (ended) return never();
  return { ok: reply.ok, status: reply.status, bytes };
}

async function request(path, method = "GET", headers = {}, content = null) {
  if (ended) return never();
  const body = content === null ? new Uint8Array() : new Uint8Array(await content.arrayBuffer());
  const reply = await sent(await hello(), path, method, headers, body);
  if (!reply.ok) {
    let text = `refused (${reply.status})`;
    try { text = json(reply).error; } catch { /* no sentence came */ }
    throw new Error(text);
  }
  return reply;
}

const json = (reply) => JSON.parse(new TextDecoder().decode(reply.bytes));

export const get = async (path) => json(await request(path));
export const remove = async (path) => json(await request(path, "DELETE"));

export async function post(path, body = {}) {
  const raw = body instanceof Blob;
  const headers = { "Content-Type": raw ? "application/octet-stream" : "application/json" };
  const content = raw ? body : new Blob([JSON.stringify(body)]), most = raw ? LARGEST_BODY : LARGEST_FIELDS;
  if (content.size > most) throw new Error(`That is too much for one request: at most ${most} bytes are taken.`);
  return json(await request(path, "POST", headers, content));
}

const urls = new Map();

/** Address of a picture; kept while `owner`, an element, is on the page. */
export async function picture(path, owner) {
  return kept(new Blob([(await request(path)).bytes], { type: "image/jpeg" }), owner);
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
  const all = (await request(path)).bytes, view = new DataView(all), found = new Map();
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
  const url = URL.createObjectURL(new Blob([(await request(path)).bytes], { type: "application/octet-stream" }));
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
