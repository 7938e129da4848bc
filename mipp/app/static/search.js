// A user's searches: the query, hits as a grid, comparison, originals, export, history.

import { get, onEnd, picture, pictures, post, release, remove, save, tried, work } from "./api.js";
import { $, bytes, el, fill, number, plural, say, told } from "./dom.js";

let user = null, state = null, file = null, current = null;
const chosen = new Set();
const larger = () => ["ip", "cosine"].includes(state.metric); // larger is nearer

onEnd(() => {
  user = state = file = current = null;
  chosen.clear();
  clearTimeout(slid.later);
});

export async function startSearch(name, known) {
  user = name;
  state = known;
  $("search-form").hidden = false;
  if (!state.descriptor) {
    $("drop").hidden = true;
    $("cost").textContent = "This index holds vectors; search it with: mipp search --vector FILE";
  }
  for (const option of $("ranking").options) option.disabled = !state.rankings.includes(option.value);
  for (const option of $("ranking").options) option.hidden = option.value === "probe" && option.disabled;
  if (!state.rankings.includes("server")) $("ranking").value = "user";
  $("range").hidden = !state.rankings.includes("threshold");
  $("threshold-label").textContent = larger() ? `${state.metric} at least` : `${state.metric} distance at most`;
  await tried(listOwners);
}

async function listOwners() {
  const job = await work("Asking whom you may search", () => post(`/api/user/${encodeURIComponent(user)}/searchable`));
  const legend = el("legend", {}, "Whose images");
  fill($("owners"), legend, ...job.result.map((owner) => el("label", { class: "check" },
    el("input", { type: "checkbox", name: "owner", value: owner.id, checked: true }),
    " ", told(owner.name), ` (${plural(owner.rows, "image")})  `)));
  const largest = Math.min(100, ...job.result.filter((owner) => owner.max_k).map((owner) => owner.max_k));
  if (largest < 100) $("k").value = largest; // an owner whose grant allows less is left out of a larger search
  if (!job.result.length) $("owners").append("No owner has granted this user anything yet.");
  else offer(new Set(job.result.flatMap((owner) => owner.rankings)));
}

/** Offer what at least one owner allows. */
function offer(allowed) {
  const select = $("ranking");
  for (const option of select.options) option.disabled ||= !allowed.has(option.value);
  const first = [...select.options].find((option) => !option.disabled);
  if (select.selectedOptions[0].disabled && first) select.value = first.value;
  $("range").hidden ||= !allowed.has("threshold");
}

/** Ids of the owners to search; none of them means all. */
function owners() {
  const boxes = [...document.querySelectorAll("#owners input")];
  const on = boxes.filter((box) => box.checked);
  if (boxes.length && !on.length) throw new Error("Choose at least one owner.");
  return on.length === boxes.length ? [] : on.map((box) => box.value);
}

function settings(threshold) {
  const k = Number($("k").value);
  if (threshold === null && !(Number.isInteger(k) && k >= 1)) throw new Error("Say how many of the nearest to find.");
  return { k: k || 100, ranking: $("ranking").value, owners: owners(), named: $("named").checked,
    threshold };
}

const range = () => {
  const value = $("threshold").value;
  if (value === "") throw new Error("Choose a threshold first.");
  return Number(value);
};

function asked() {
  return $("use-threshold").checked ? range() : null;
}

async function search(threshold) {
  if (!file) throw new Error("Choose an image first.");
  const given = settings(threshold);
  const query = new URLSearchParams({ k: given.k, ranking: given.ranking, named: given.named ? "1" : "0" });
  if (threshold !== null) query.set("threshold", threshold);
  for (const owner of given.owners) query.append("owners", owner);
  const from = file;
  await run(() => post(`/api/user/${encodeURIComponent(user)}/search?${query}`, from));
}

async function run(begin) {
  const began = performance.now();
  const job = await work("Search", begin, (found) => display(found));
  await display(job.result);
  $("result-title").focus();
  say(`Found ${plural(current.total, "image")} in ${((performance.now() - began) / 1000).toFixed(2)} s.`);
  $("result").dataset.milliseconds = String(Math.round(performance.now() - began));
  await listHistory();
}

async function like(hit) {
  const given = settings(asked());
  await run(() => post(`/api/searches/${current.number}/like`, { ...given, hit, openly: $("openly").checked }));
}

/** Show a search: its first hits, or those shown before. */
async function display(found, count = null) {
  const same = current && current.number === found;
  const shown = count ?? Math.max(same ? current.hits.length : 0, 100);
  const result = await get(`/api/searches/${found}?start=0&count=${Math.min(shown, 1000)}`);
  if (!same) chosen.clear();
  current = result;
  draw();
  if (!result.hits.some((hit) => hit.picture)) return;
  const all = await pictures(`/api/searches/${found}/pictures?start=0&count=${result.hits.length}`, $("hits"));
  if (current !== result) return;
  await Promise.all([...all].map(async ([n, url]) => {
    const hit = result.hits[n], image = el("img", { src: url, alt: hit.caption || hit.name || `Hit ${n + 1}` });
    fill($("hits").children[n].firstElementChild, image);
    await image.decode().catch(() => {});
  }));
}

function draw() {
  $("result").hidden = false;
  $("result-title").textContent = `${plural(current.total, "hit")}: ${current.what}`;
  const verified = current.unverified ? `Not verified: ${current.unverified}.` : "Answers were verified.";
  $("result-facts").textContent = `${plural(current.searched, "image")} searched in ${current.seconds} s. ${verified}`;
  fill($("result-warnings"),
    ...current.left_out.map((one) => el("p", { class: "warning" }, "Left out: ", told(one))),
    current.clustered === 0 ? el("p", { class: "warning" },
      "No batch is large enough for clusters: all images were ranked.") : null,
    current.suspects.length ? el("p", { class: "failure" },
      `Server ${current.suspects.join(" or ")} answered wrongly; tell the operators.`) : null,
    current.unnamed ? el("p", { class: "warning" }, told(current.unnamed)) : null);
  const names = new Map(current.hits.map((hit) => [hit.owner_id, hit.owner]));
  const filter = $("filter-owner").value;
  fill($("filter-owner"), el("option", { value: "" }, "all owners"),
    ...[...names].map(([id, name]) => el("option", { value: id, selected: id === filter }, name)));
  release($("hits"));
  fill($("hits"), ...current.hits.map(card));
  showFiltered();
  fillSlider();
  const unseen = current.hits.length < current.total || current.hits.some((hit) => !hit.named && !current.unnamed);
  $("more").hidden = !unseen || (current.threshold !== null && current.hits.length >= current.total);
  $("more").textContent = current.hits.length < current.total
    ? `Show more of ${plural(current.total, "hit")}` : "Fetch names and pictures";
}

function card(hit) {
  const value = hit.value === null ? "" : `${state.metric}${larger() ? "" : " distance"} ${number(hit.value)}`;
  const rank = current.threshold === null ? `${hit.number + 1}.` : "";
  return el("li", { class: "card", "data-hit": hit.number, "data-owner": hit.owner_id },
    el("button", { type: "button", class: "frame", "aria-label": `Look at hit ${hit.number + 1}`,
      click: () => tried(() => compare([hit.number])) }, hit.named ? "no picture" : "picture not fetched"),
    el("p", {}, el("strong", {}, rank, " ", told(hit.owner)), ` ${value}`),
    hit.name ? el("p", {}, told(hit.name)) : null,
    hit.caption ? el("p", { class: "caption" }, told(hit.caption)) : null,
    hit.problem ? el("p", { class: "warning" }, told(hit.problem)) : null,
    el("div", { class: "controls" },
      el("label", { class: "check" }, el("input", { type: "checkbox", "data-choose": hit.number,
        checked: chosen.has(hit.number), change: (event) => choose(hit.number, event.target.checked) }), " choose"),
      state.descriptor ? el("button", { type: "button", click: () => tried(() => like(hit.number)) }, "More like this") : null));
}

function choose(hit, on) {
  if (on) chosen.add(hit);
  else chosen.delete(hit);
  showChosen();
}

function showChosen() {
  $("chosen").textContent = chosen.size ? `${chosen.size} chosen` : "none chosen";
  for (const item of $("hits").children) {
    const on = chosen.has(Number(item.dataset.hit));
    item.classList.toggle("chosen", on);
    item.querySelector("[data-choose]").checked = on;
  }
}

function showFiltered() {
  const wanted = $("filter-owner").value;
  for (const item of $("hits").children) item.hidden = wanted !== "" && item.dataset.owner !== wanted;
  showChosen();
}

/** The slider's ends: values of the hits that are there, else what the metric allows. */
function fillSlider() {
  const values = current.hits.map((hit) => hit.value).filter((value) => value !== null);
  const ends = values.length > 1 ? [Math.min(...values), Math.max(...values)] : { cosine: [-1, 1] }[state.metric] || null;
  if (!ends || ends[0] === ends[1]) return;
  Object.assign($("threshold-slider").dataset, { low: ends[0], high: ends[1] });
}

function slid() {
  const { low, high } = $("threshold-slider").dataset;
  const [from, to] = low === undefined ? (larger() ? [-1, 1] : [0, 2]) : [Number(low), Number(high)];
  const part = Number($("threshold-slider").value) / 1000;
  $("threshold").value = number(from + part * (to - from));
  $("use-threshold").checked = true;
  clearTimeout(slid.later);
  slid.later = setTimeout(() => tried(showCost), 300);
}

async function showCost() {
  const given = settings(asked());
  const job = await work("Cost", () => post(`/api/user/${encodeURIComponent(user)}/cost`, given));
  const cost = job.result;
  $("cost").textContent = `${plural(cost.images, "image")} searched. You send ${bytes(cost.sent)} to and get `
    + `${bytes(cost.received)} from each server`
    + (cost.servers ? `; servers send each other up to ${bytes(cost.servers)}` : "")
    + (cost.records ? `. Names and pictures: ${plural(cost.records, "record")}, ${bytes(cost.record_bytes)} with each of `
      + `two clouds, which read ${bytes(cost.read)}` : "") + ". It counts as one query of your quotas.";
}

async function more() {
  const shown = current.hits.length;
  const unnamed = current.hits.findIndex((hit) => !hit.named);
  if (current.unnamed === "" && unnamed >= 0 && current.threshold === null) {
    await work("Names and pictures", () => post(`/api/searches/${current.number}/names`, { start: unnamed }));
    await display(current.number);
    return;
  }
  const upto = Math.min(shown + 100, current.total);
  if ($("named").checked && current.threshold === null) {
    await work("Names and pictures", () => post(`/api/searches/${current.number}/names`, { start: shown }));
  }
  await display(current.number, upto);
}

function picked() {
  if (!chosen.size) throw new Error("Choose some hits first.");
  return [...chosen].sort((a, b) => a - b);
}

async function originals(hits) {
  await work("Fetching images", () => post(`/api/searches/${current.number}/originals`,
    { hits, openly: $("openly").checked }));
  await display(current.number);
}

async function exported(kind) {
  // a table costs nothing: of all hits that are shown, if none is chosen
  const shown = [...$("hits").children].filter((item) => !item.hidden).map((item) => Number(item.dataset.hit));
  const hits = kind === "csv" && !chosen.size ? shown : picked();
  const job = await work("Export", () => post(`/api/searches/${current.number}/export`,
    { hits, kind, openly: $("openly").checked }));
  await save(`/api/jobs/${job.id}/file`, job.file);
  say(`Saved ${job.file}.`);
}

/** Hits beside the query, and beside each other, as large as they are here. */
async function compare(hits) {
  if (hits.length > 4) throw new Error("Compare at most four hits.");
  const body = $("dialog-body");
  release(body);
  $("dialog-title").textContent = hits.length > 1 ? "Compare" : `Hit ${hits[0] + 1}`;
  const query = el("div", {}, el("h3", {}, "Query"), el("div", { class: "frame" }));
  const pair = el("div", { class: "pair" }, query);
  fill(body, pair);
  if (!$("dialog").open) $("dialog").showModal();
  const show = async (place, path, alt) => {
    try {
      const packed = path.includes("/pictures?");
      const url = packed ? [...(await pictures(path, body)).values()][0] : await picture(path, body);
      fill(place, el("img", { src: url, alt }));
    } catch (error) {
      fill(place, el("p", { class: "note" }, error.message));
    }
  };
  show(query.lastChild, `/api/searches/${current.number}/query`, "The query image");
  for (const n of hits) {
    const hit = current.hits[n];
    const frame = el("div", { class: "frame" }, "no picture");
    const fetched = () => tried(async () => { await originals([n]); await compare(hits); });
    pair.append(el("div", {}, el("h3", {}, `${n + 1}. `, told(hit.owner)), frame,
      el("p", { class: "controls" },
        hit.original
          ? el("button", { type: "button", click: () => tried(() => save(`/api/searches/${current.number}/files/${n}`,
            (hit.name || "image").split("/").pop())) }, "Save the file")
          : el("button", { type: "button", click: fetched }, "Fetch the image")),
      el("dl", {}, ...[["name", hit.name], [state.metric, hit.value === null ? "" : number(hit.value)], ["id", hit.id],
        ["caption", hit.caption], ...(hit.metadata || []).filter(([field]) => field !== "caption")]
        .filter(([, value]) => value).flatMap(([field, value]) => [el("dt", {}, told(field)), el("dd", {}, told(value))]))));
    if (hit.original) show(frame, `/api/searches/${current.number}/originals/${n}`, hit.caption || hit.name || "");
    else if (hit.picture) show(frame, `/api/searches/${current.number}/pictures?start=${n}&count=1`, hit.caption || hit.name || "");
  }
}

async function listHistory() {
  const known = (await get("/api/state")).searches;
  $("history").hidden = !known.length;
  fill($("history").querySelector("ol"), ...known.reverse().map((one) => el("li", {},
    el("button", { type: "button", click: () => tried(() => display(one.number)) },
      `${new Date(one.when * 1000).toLocaleTimeString()}: ${one.what}, ${plural(one.total, "hit")}`), " ",
    el("button", { type: "button", "aria-label": "Forget this search", click: () => tried(async () => {
      await remove(`/api/searches/${one.number}`);
      if (current && current.number === one.number) { current = null; $("result").hidden = true; }
      await listHistory();
    }) }, "Forget"))));
}

/** After a reload: what was found, and what is still under way. */
export async function resume(known) {
  if (user === null) return;
  await tried(listHistory);
  if (known.searches.length) await tried(() => display(known.searches[known.searches.length - 1].number));
  for (const job of known.jobs.filter((one) => one.what === "search")) {
    tried(() => run(async () => job));
  }
}

function choosing(chosenFile) {
  if (!chosenFile) return;
  file = chosenFile;
  const preview = $("query-preview");
  release(preview);
  const url = URL.createObjectURL(file);
  preview.onload = preview.onerror = () => { preview.hidden = !preview.naturalWidth; URL.revokeObjectURL(url); };
  preview.src = url;
  tried(() => search(asked()));
}

$("query-file").addEventListener("change", (event) => choosing(event.target.files[0]));
for (const name of ["dragenter", "dragover"]) {
  $("drop").addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  choosing(event.dataTransfer.files[0]);
});
// a file that is dropped beside the place would replace the page
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
$("search-form").addEventListener("submit", (event) => { event.preventDefault(); tried(() => search(asked())); });
$("show-cost").addEventListener("click", () => tried(showCost));
$("threshold-slider").addEventListener("input", slid);
$("threshold").addEventListener("input", () => { $("use-threshold").checked = $("threshold").value !== ""; });
$("go-range").addEventListener("click", () => tried(() => search(range())));
$("filter-owner").addEventListener("change", showFiltered);
$("choose-all").addEventListener("click", () => {
  for (const item of $("hits").children) if (!item.hidden) chosen.add(Number(item.dataset.hit));
  showChosen();
});
$("choose-none").addEventListener("click", () => { chosen.clear(); showChosen(); });
$("compare").addEventListener("click", () => tried(() => compare(picked())));
$("originals").addEventListener("click", () => tried(() => originals(picked())));
$("export-csv").addEventListener("click", () => tried(() => exported("csv")));
$("export-zip").addEventListener("click", () => tried(() => exported("zip")));
$("more").addEventListener("click", () => tried(more));
$("dialog").addEventListener("close", () => release($("dialog-body")));
