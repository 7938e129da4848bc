// An owner's images: add, list, annotate, delete; grants; audit.

import { onEnd, pictureOf, post, release, tried, work } from "./api.js";
import { $, el, fill, plural, say, told } from "./dom.js";

let owner = null, first = 0;
const chosen = new Set();
const at = (action) => `/api/owner/${encodeURIComponent(owner)}/${action}`;

onEnd(() => {
  owner = null;
  chosen.clear();
});

export async function startOwner(name, state) {
  owner = name;
  first = 0;
  chosen.clear();
  $("owner-desk").hidden = false;
  $("add-form").hidden = !state.descriptor;
  for (const box of document.querySelectorAll("[name=ranking]")) {
    box.disabled = !state.rankings.includes(box.value);
    box.parentElement.hidden = box.value === "probe" && box.disabled;
    box.checked = box.value === state.rankings[0];
  }
  await tried(async () => { await list(); await listGrants(); });
}

async function browse() {
  const found = await post("/api/folders", { path: $("folder").value });
  $("folder").value = found.path;
  const into = (name) => () => {
    $("folder").value = name === null ? found.parent : `${found.path}/${name}`.replace("//", "/");
    tried(browse);
  };
  fill($("folders"), ...found.folders.map((name) => el("option", { value: `${found.path}/${name}` })));
  fill($("inside"), el("p", {}, `${plural(found.files, "file")} and ${plural(found.folders.length + found.more, "folder")}. `,
    el("button", { type: "button", click: into(null) }, "Up")),
    el("p", { class: "controls" }, ...found.folders.map((name) =>
      el("button", { type: "button", click: into(name) }, told(name)))));
}

async function add() {
  const job = await work("Adding images", () => post(at("add"), { folder: $("folder").value }));
  const report = job.result;
  const lines = report.errors.map(([file, reason]) => el("p", { class: "warning" }, told(file), ": ", told(reason)));
  fill($("added"), el("p", {}, `${plural(report.added, "image")} added, ${report.skipped} already there, `
    + `${report.replaced} replaced, ${report.failed} left out`
    + (report.others ? `; ${plural(report.others, "file")} left out that ${report.others === 1 ? "is no image" : "are no images"}` : "") + "."), ...lines);
  await list();
}

async function list() {
  const job = await work("Listing images", () => post(at("images"), { start: first, filter: $("list-filter").value }));
  const found = job.result, grid = $("owned");
  const shown = found.images.length ? `${first + 1} to ${first + found.images.length} of ` : "";
  $("list-facts").textContent = `${shown}${plural(found.total, "image")}.`;
  $("list-back").hidden = first === 0;
  $("list-on").hidden = first + found.images.length >= found.total;
  step = Math.max(found.images.length, 1);
  release(grid);
  fill(grid, ...found.images.map((image) => card(image, found.records, grid)));
}
let step = 1;

function card(image, records, grid) {
  const caption = (image.metadata || []).find(([field]) => field === "caption");
  const frame = image.thumbnail
    ? el("img", { src: pictureOf(image.thumbnail, grid), alt: caption ? caption[1] : image.path })
    : el("span", {}, "no picture");
  return el("li", { class: "card" }, el("div", { class: "frame" }, frame),
    el("p", { title: image.path }, told(image.path.split("/").slice(-2).join("/") || image.id)),
    caption ? el("p", { class: "caption" }, told(caption[1])) : null,
    el("div", { class: "controls" },
      el("label", { class: "check" }, el("input", { type: "checkbox", checked: chosen.has(image.id),
        change: (event) => (event.target.checked ? chosen.add(image.id) : chosen.delete(image.id)) }), " choose"),
      records ? el("button", { type: "button", click: () => annotate(image) }, "Annotate") : null));
}

function annotate(image) {
  const body = $("dialog-body");
  const fields = [...(image.metadata || [])];
  if (!fields.some(([field]) => field === "caption")) fields.unshift(["caption", ""]);
  const inputs = fields.map(([field, value]) => [field, el("input", { type: "text", value, maxlength: 10000 })]);
  const name = el("input", { type: "text", maxlength: 100, "aria-label": "New field" });
  const value = el("input", { type: "text", maxlength: 10000, "aria-label": "Its text" });
  $("dialog-title").textContent = "Annotate";
  fill(body, el("form", { submit: (event) => {
    event.preventDefault();
    const changed = inputs.filter(([field, input]) =>
      input.value !== ((image.metadata || []).find(([one]) => one === field) || ["", ""])[1])
      .map(([field, input]) => [field, input.value]);
    if (name.value) changed.push([name.value, value.value]);
    tried(async () => {
      if (changed.length) {
        // own properties whatever their names, also __proto__
        await work("Annotating", () => post(at("annotate"), { id: image.id, fields: Object.fromEntries(changed) }));
      }
      $("dialog").close();
      await list();
      say("Annotated.");
    });
  } }, el("p", { class: "note" }, told(image.path || image.id)),
  ...inputs.map(([field, input]) => el("p", { class: "controls" }, el("label", { class: "grow" }, told(field), input))),
  el("p", { class: "controls" }, el("label", {}, "New field ", name), el("label", { class: "grow" }, "Its text ", value)),
  el("button", { type: "submit" }, "Save")));
  $("dialog").showModal();
}

async function erase() {
  if (!chosen.size) throw new Error("Choose some images first.");
  if (!confirm(`Delete ${plural(chosen.size, "image")} from all servers? This cannot be undone.`)) return;
  const job = await work("Deleting", () => post(at("delete"), { ids: [...chosen] }));
  chosen.clear();
  await list();
  say(`${plural(job.result, "image")} deleted.`);
}

async function listGrants() {
  const job = await work("Listing grants", () => post(at("grants")));
  fill($("grants").tBodies[0], ...job.result.map((grant) => {
    const limits = [grant.quota ? `${grant.used ?? 0} of ${grant.quota} queries used` : "",
      grant.max_k ? `k up to ${grant.max_k}` : "", grant.min_rows ? `at least ${grant.min_rows} rows` : "",
      grant.scores ? "" : "no scores"].filter(Boolean).join(", ");
    const how = grant.revoked ? "revoked" : grant.ended ? "ended" : "in force";
    return el("tr", {}, el("td", {}, told(grant.name || grant.user)), el("td", {}, grant.rankings.join(", ")),
      el("td", {}, limits || "none"), el("td", {}, grant.expiry ? new Date(grant.expiry * 1000).toLocaleString() : "no end"),
      el("td", {}, how), el("td", {}, grant.revoked ? null : el("button", { type: "button",
        "aria-label": `Revoke the grant of ${grant.name || grant.user}`,
        click: () => tried(() => revoke(grant)) }, "Revoke")));
  }));
}

async function revoke(grant) {
  const who = grant.name || grant.user;
  if (!confirm(`Revoke the grant of ${who}? A new grant begins a new count of its quota.`)) return;
  await work("Revoking", () => post(at("revoke"), { user: grant.user }));
  await listGrants();
  say(`${grant.name || grant.user} may search no more, from the next query on.`);
}

async function give() {
  const rankings = [...document.querySelectorAll("[name=ranking]")].filter((box) => box.checked).map((box) => box.value);
  if (!rankings.length) throw new Error("Choose what the user may do.");
  const user = $("grant-user").value.trim();
  await work("Granting", () => post(at("grant"), { user, rankings, expiry: $("grant-expiry").value || "0",
    quota: Number($("grant-quota").value) || 0, max_k: Number($("grant-k").value) || 0, scores: $("grant-scores").checked }));
  await listGrants();
  say(`${user} may search these images.`);
}

async function audit() {
  const job = await work("Audit", () => post(at("audit"), { sample: $("sample").value }));
  fill($("audit-result"), ...job.result.clouds.map((cloud) => el("li", { class: cloud.ok ? "note" : "failure" },
    `Cloud ${cloud.server}: `, cloud.ok ? `${plural(cloud.rows, "row")} are as they were uploaded` : "",
    cloud.differing ? `${plural(cloud.differing, "batch")} differ from what was uploaded ` : "",
    cloud.lost ? `${plural(cloud.lost, "batch")} damaged or missing ` : "",
    cloud.not_audited ? `${plural(cloud.not_audited, "batch")} not audited ` : "",
    cloud.problem ? told(cloud.problem) : "")));
  say(job.result.ok ? "The audit passed." : "The audit did not pass; see below.", !job.result.ok);
}

$("browse").addEventListener("click", () => tried(browse));
$("add-form").addEventListener("submit", (event) => { event.preventDefault(); tried(add); });
$("list-form").addEventListener("submit", (event) => { event.preventDefault(); first = 0; tried(list); });
$("list-on").addEventListener("click", () => { first += step; tried(list); });
$("list-back").addEventListener("click", () => { first = Math.max(0, first - 60); tried(list); });
$("delete").addEventListener("click", () => tried(erase));
$("grant-form").addEventListener("submit", (event) => { event.preventDefault(); tried(give); });
$("audit").addEventListener("click", () => tried(audit));
